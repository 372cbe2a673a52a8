"""DPM fast, DPM adaptive and Restart: solvers that choose the host's levels themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kdiffusion import k_diffusion
from support.solvers import (
    KINDS,
    KINDS_AND_SCHEDULES,
    MEAN,
    SHAPE,
    SPREAD,
    STRENGTHS,
    Changing,
    Gaussian,
    Network,
    Noise,
    close,
    randn,
    schedule_for,
    sigma_schedule,
)
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.model.timesteps import is_uniform
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run, StepRecord
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.solvers import dpm_solver as dpm_solver_module
from asyndm_ext.solvers.dpm_solver import fast_orders
from asyndm_ext.solvers.exponential import phis
from asyndm_ext.solvers.restart import restart_plan

MAP = (2, 1, 4, 5)
EVEN = FixedRegion.everything(MAP, 0.0)
ENDS = {"sigma_min": torch.tensor(0.03, dtype=torch.float64), "sigma_max": torch.tensor(14.6, dtype=torch.float64)}
FLOW_ENDS = {"sigma_min": torch.tensor(0.01, dtype=torch.float64), "sigma_max": torch.tensor(1.0, dtype=torch.float64)}
# Exact in float32, in which k-diffusion holds them.
TOLERANCES = {"rtol": 0.046875, "atol": 0.0078125}


def sample(name: str, arguments: dict, region, curve: str, x: Tensor, *, model=None, noise=None, **runs) -> Tensor:
    """As a host does it: everything from the host's keyword arguments."""
    solver = SOLVERS[name]
    schedule = PixelSchedule(solver.schedule(arguments), (x.shape[0], 1, *x.shape[-2:]), curve)
    run = Run(model or Gaussian("sigma"), schedule, region, x, FromHost(randn_like=noise or Noise(), **runs))
    return solver.sample(run, x, **solver.chosen(arguments))


class Theirs:
    """The model as k-diffusion calls it."""

    def __init__(self, kind: str) -> None:
        self.model = Network(kind)
        self.nominals: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.nominals.append(float(sigma[0]))
        return self.model.answers(x, sigma.view(-1, 1, 1, 1))[0]


def compare(name: str, function: Callable[..., Tensor], arguments: dict, kind: str, tolerance: float = 1e-8) -> None:
    """Result, callback, noise and model calls of the host's function and of ours at strength 0."""
    sampling, _ = k_diffusion()
    x = randn(*SHAPE, seed=3) * (1.0 if kind == "flow" else 14.6)
    theirs, ours, their_noise, our_noise = Theirs(kind), Network(kind), Noise(), Noise()
    their_reports: list[dict] = []
    our_reports: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.torch, "randn_like", their_noise)
        expected = function(theirs, x, callback=their_reports.append, **arguments)
    found = sample(name, arguments, EVEN, "quadratic", x, model=ours, noise=our_noise, callback=our_reports.append)
    close(found, expected, tolerance)
    assert our_noise.drawn == their_noise.drawn, "the seed would give another picture"
    assert ours.nominals == pytest.approx(theirs.nominals, rel=1e-7)
    assert all(is_uniform(level) for level in ours.levels)
    assert [r["i"] for r in our_reports] == [r["i"] for r in their_reports]
    for mine, their in zip(our_reports, their_reports, strict=True):
        assert float(mine["sigma"]) == pytest.approx(float(their["sigma"]), rel=1e-6)
        close(mine["x"], their["x"], tolerance)
        close(mine["denoised"], their["denoised"], tolerance)


# -- equal to the host on the host's schedule


@pytest.fixture
def double_precision() -> Iterator[None]:
    """k-diffusion makes its levels in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7, 11, 12, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_is_k_diffusions_dpm_fast(kind: str, n: int, eta: float) -> None:
    sampling, _ = k_diffusion()
    arguments = {**(FLOW_ENDS if kind == "flow" else ENDS), "n": n, "eta": eta, "s_noise": 0.9, "disable": True}
    compare("DPM fast", sampling.sample_dpm_fast, arguments, kind)
    assert sum(fast_orders(n)) == n


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"order": 2}, {"pcoeff": 0.3, "icoeff": 0.7, "dcoeff": 0.1, "h_init": 3.0}])
@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_is_k_diffusions_dpm_adaptive(kind: str, options: dict, eta: float) -> None:
    sampling, _ = k_diffusion()
    arguments = {**(FLOW_ENDS if kind == "flow" else ENDS), **TOLERANCES, **options, "eta": eta, "disable": True}
    compare("DPM adaptive", sampling.sample_dpm_adaptive, arguments, kind)


def webui_restart(model, x: Tensor, sigmas: Tensor, callback, s_noise: float = 1.0, restart_list=None) -> Tensor:
    """The WebUI's walk, step by step: down, and after the level nearest to a key up again and down once more."""
    sampling, _ = k_diffusion()
    steps = len(sigmas) - 1
    if restart_list is None and steps >= 20:
        again, times = (9, 1) if steps < 36 else (steps // 4, 2)
        sigmas = sampling.get_sigmas_karras(steps - again * times, sigmas[-2].item(), sigmas[0].item())
        restart_list = {0.1: [again + 1, times, 2]}
    levels = [float(s) for s in sigmas]
    spots = {min(range(len(levels)), key=lambda k: abs(levels[k] - w)): v for w, v in (restart_list or {}).items()}
    count, state = 0, SimpleNamespace(x=x, sigma=levels[0])

    def heun(start: float, end: float) -> None:
        nonlocal count
        if start > state.sigma:
            noise = sampling.torch.randn_like(state.x)
            state.x = state.x + noise * s_noise * math.sqrt(start**2 - state.sigma**2)
        rows = torch.full((len(x),), start, dtype=torch.float64)
        denoised = model(state.x, rows)
        d = (state.x - denoised) / start
        callback({"x": state.x, "i": count, "sigma": end, "sigma_hat": start, "denoised": denoised})
        if end > 0:
            middle = state.x + d * (end - start)
            d = (d + (middle - model(middle, torch.full_like(rows, end))) / end) / 2
        state.x, state.sigma, count = state.x + d * (end - start), end, count + 1

    for k in range(steps if len(levels) - 1 == steps else len(levels) - 1):
        heun(levels[k], levels[k + 1])
        if k + 1 in spots:
            n, times, top = spots[k + 1]
            start = min(range(len(levels)), key=lambda j: abs(levels[j] - top))
            if start < k + 1:
                way = sampling.get_sigmas_karras(n, levels[k + 1], levels[start])[:-1].tolist()
                for _ in range(times):
                    for a, b in itertools.pairwise(way):
                        heun(a, b)
    return state.x


RESTARTS = [None, {}, {0.3: [4, 1, 3.0]}, {1.0: [3, 2, 5.0], 0.1: [5, 1, 1.5]}, {0.0: [3, 1, 2.0]}, {3.0: [3, 1, 2.0]}]


@pytest.mark.parametrize("restart_list", RESTARTS)
@pytest.mark.parametrize("steps", [7, 20, 36, 41])
@pytest.mark.parametrize(("kind", "schedule"), [ks for ks in KINDS_AND_SCHEDULES if ks[1] not in ("linear", "no zero")])
def test_strength_zero_is_the_webuis_restart(kind: str, schedule: str, steps: int, restart_list: dict | None) -> None:
    sigmas = schedule_for(kind, schedule, steps)
    arguments = {"sigmas": sigmas, "restart_list": restart_list, "s_noise": 0.9}
    compare("Restart", webui_restart, arguments, kind, 1e-10)
    if restart_list is None:
        assert len(restart_plan(sigmas)[1]) == steps


# -- each pixel as if alone


def alone(name: str, arguments: dict, region_of: Callable, curve: str, x: Tensor) -> Tensor:
    """Every pixel sampled as a 1x1 latent of one image."""
    result = torch.empty_like(x)
    for b, i, j in itertools.product(range(x.shape[0]), range(x.shape[2]), range(x.shape[3])):
        at = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
        model = Gaussian("sigma", MEAN[at], SPREAD[at])
        result[at] = sample(name, arguments, region_of(at), curve, x[at], model=model, noise=Noise(at))
    return result


CASES = [
    ("DPM fast", {**ENDS, "n": 11, "eta": 0.0}),
    ("DPM fast", {**ENDS, "n": 12, "eta": 1.0}),
    ("DPM adaptive", {**ENDS, "eta": 0.0, "h_init": 1.1}),
    ("DPM adaptive", {**ENDS, "eta": 1.0, "order": 2, "h_init": 1.1}),
    ("Restart", {"sigmas": sigma_schedule("karras", 20)}),
    ("Restart", {"sigmas": sigma_schedule("exponential", 12), "restart_list": {1.0: [3, 2, 5.0], 0.1: [4, 1, 1.5]}}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_model_calls_with_a_map(name: str, arguments: dict) -> None:
    """As many as without, but for DPM adaptive: its steps depend on the picture, as README and SPEED say."""
    calls = []
    for region in (EVEN, FixedRegion(STRENGTHS.view(MAP))):
        model = Network("eps")
        sample(name, arguments, region, "piecewise linear", randn(*SHAPE, seed=5) * 14.6, model=model)
        calls.append(len(model.nominals))
    assert (calls[0] == calls[1]) == (name != "DPM adaptive"), calls


@pytest.fixture
def forced_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third trial is rejected and all steps are equal: alone, a pixel would choose others."""

    def accepts(size, error: float) -> bool:
        assert math.isfinite(error)
        size.inverse_errors.append(error)
        return len(size.inverse_errors) % 3 != 0

    monkeypatch.setattr(dpm_solver_module.StepSize, "accepts", accepts)


@pytest.mark.usefixtures("forced_steps")
@pytest.mark.parametrize(("curve", "changing"), [*((curve, False) for curve in CURVES), ("exponential", True)])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_pixel_of_a_map_is_the_pixel_alone(name: str, arguments: dict, curve: str, changing: bool) -> None:
    strength = STRENGTHS.view(MAP)
    maps = [strength]
    if changing:
        generator = torch.Generator().manual_seed(6)
        maps = [strength * torch.randint(2, MAP, generator=generator) for _ in range(30)]
    x = randn(*SHAPE, seed=5) * 14.6
    found = sample(name, arguments, Changing(maps), curve, x)
    expected = alone(name, arguments, lambda at: Changing([m[at[0], :, at[2], at[3]] for m in maps]), curve, x)
    close(found, expected, 1e-12)
    plain = sample(name, arguments, EVEN, curve, x)
    moved = (found - plain).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] == 0).all()), "a pixel on the host's schedule is the host's pixel"
    if curve != "linear" and not changing:
        assert bool((moved[strength > 0] > 1e-6).all()), "a slow pixel is another one"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from(CURVES), st.booleans(), st.data())
def test_any_history_of_masks_gives_finite_latents(case, curve: str, single: bool, data) -> None:
    name, arguments = case
    strengths = st.sampled_from([0.0, 0.05, 0.4, 0.7, 1.0])
    maps = data.draw(st.lists(st.lists(strengths, min_size=40, max_size=40), min_size=1, max_size=6))
    region = Changing([torch.tensor(m, dtype=torch.float64).view(MAP) for m in maps])
    x = randn(*SHAPE, seed=9) * 14.6
    records: list[StepRecord] = []
    found = sample(name, arguments, region, curve, x.float() if single else x, watch=records.append)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 20, "the data have a spread of about one"
    assert [record.step for record in records] == list(range(len(records)))
    for record in records:
        assert bool((record.level >= record.nominal * (1 - 1e-9)).all()), "no pixel runs ahead of the host"
        assert bool((record.level <= records[0].nominal * (1 + 1e-9)).all()), "none above where it began"


# -- the clock


@given(st.integers(2, 30), st.floats(0, 1), st.floats(0, 1))
def test_the_progress_at_a_level_is_the_inverse_of_the_level_at_a_height(steps: int, a: float, b: float) -> None:
    base = BaseSchedule.from_sigmas(sigma_schedule("karras", steps))
    for node, sigma in enumerate(base.nodes.tolist()):
        assert base.remaining_at(sigma) == (base.updates - node) / max(base.updates, 1)
    for height in (a, b):
        level = float(base.at_height(torch.tensor(height, dtype=torch.float64)))
        assert base.remaining_at(level) == pytest.approx(height, abs=1e-5)
    assert base.remaining_at(1e-9) == 0 and base.remaining_at(100.0) == 1


def test_a_restart_raises_every_pixel_and_keeps_their_order() -> None:
    base = BaseSchedule.from_sigmas(sigma_schedule("karras", 15))
    schedule = PixelSchedule(base, MAP, "quadratic")
    strength = STRENGTHS.view(MAP)
    passed = {}
    for sigma in base.nodes[1:12].tolist():
        schedule.take(schedule.peek(strength, sigma))
        passed[sigma] = schedule.level
    low = schedule.level
    three, four = base.nodes[3:5].tolist()
    between = schedule.restart(strength, (three * four) ** 0.5)
    assert bool((between > low).all())
    assert bool((between < passed[three]).all()) and bool((between > passed[four]).all())
    assert torch.equal(schedule.restart(strength, three), passed[three]), "each as it was when the host came past"
    schedule.take(schedule.peek(0 * strength, 0.0))
    assert torch.equal(schedule.level, torch.zeros(MAP, dtype=torch.float64))
    assert torch.allclose(schedule.restart(strength, three), passed[three], rtol=1e-12)


def test_noise_of_a_restart_is_what_each_pixel_is_raised_by() -> None:
    """Where the picture is known, the latent deviates by its noise level: Heun keeps to it, noise adds to it."""

    class Point(Gaussian):
        def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
            return torch.zeros_like(x)

    seen: list[float] = []

    class Watching(Point):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.extend((x.std(dim=(0, 1), keepdim=True) / level).flatten().tolist())
            return super().__call__(x, nominal, level)

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 20000, 1, 3, generator=generator, dtype=torch.float64) * 14.6
    strength = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    noise = lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)  # noqa: E731
    arguments = {"sigmas": sigma_schedule("karras", 12), "restart_list": {0.1: [4, 3, 4.0]}}
    sample("Restart", arguments, FixedRegion(strength), "quadratic", x, model=Watching("sigma"), noise=noise)
    assert len(seen) > 60
    assert seen == pytest.approx([1.0] * len(seen), rel=0.03)


# -- formulas


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_phi_near_and_at_zero(k: int) -> None:
    z = torch.tensor([-8.0, -1.0, -0.999, -0.1, -1e-3, -1e-8, 0.0, 1e-8, 0.5, 1.0, 1.001, 4.0], dtype=torch.float64)
    exact = [math.fsum(float(v) ** j / math.factorial(j + k) for j in range(60)) for v in z]
    assert phis(z, 4)[k].tolist() == phis(z, max(k, 1))[k].tolist() == pytest.approx(exact, rel=1e-12)


def test_dpm_fast_converges_at_second_order_or_better_under_a_map() -> None:
    """Third order steps; the last ones of order two and one are as long as the others, which costs an order."""
    x = randn(*SHAPE, seed=21) * 14.6
    counts, results = [61, 121, 241], []
    for n in [*counts, 961]:  # n = 3 * steps + 1
        region = FixedRegion(STRENGTHS.view(MAP) * 0.9)
        results.append(sample("DPM fast", {**ENDS, "n": n}, region, "quadratic", x))
    errors = [float((result - results[-1]).norm() / results[-1].norm()) for result in results[:-1]]
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    print(f"\nDPM fast: calls {counts}, errors {[f'{e:.1e}' for e in errors]}, orders {[f'{o:.2f}' for o in found]}")
    assert min(found) > 1.75
