"""UniPC: the WebUI's coefficients on its own schedule, each pixel as if alone, order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.solvers import (
    MEAN,
    SHAPE,
    SPREAD,
    STRENGTHS,
    TABLE,
    Changing,
    Gaussian,
    Network,
    Noise,
    close,
    randn,
    run_solver,
    schedule_for,
    start_of,
    webui_timesteps,
)
from test_timestep_solvers import SMOOTH, Coupled, SmoothTable
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import LEVELS, SOLVERS
from asyndm_ext.solvers.unipc import bounded

MAP = (2, 1, 4, 5)
EVEN = FixedRegion.everything(MAP, 0.0)
VARIANTS = ("bh1", "bh2", "vary_coeff")
SKIPS = ("time_uniform", "time_quadratic", "logSNR")


def webui(steps: int, **options) -> dict:
    return {"timesteps": webui_timesteps(steps), "alphas_cumprod": TABLE.alphas_cumprod, **options}


def sample(arguments: dict, region, curve: str, x: Tensor, model=None, table: NoiseTable = TABLE, **runs) -> Tensor:
    solver = SOLVERS["UniPC"]
    schedule = PixelSchedule(solver.schedule(arguments), (x.shape[0], 1, *x.shape[-2:]), curve)
    run = Run(model or Gaussian("timestep"), schedule, region, x, FromHost(table=table, **runs))
    return solver.sample(run, x, **solver.chosen(arguments))


# -- the method as its authors' code has it, restated for scalars with matrices


def scalar_update(lam: list[float], end: float, variant: str, answers: list[Tensor], newest: Tensor | None) -> Tensor:
    """What is taken from the first-order step, before the factor alpha; ``lam`` and ``answers`` newest first."""
    z = lam[0] - end
    ratios = [(value - lam[0]) / -z for value in lam[1:]] + ([1.0] if newest is not None else [])
    slopes = [(a - answers[0]) / r for a, r in zip([*answers[1:], newest], ratios, strict=False)]
    if not ratios:
        return 0 * answers[0]
    phis = [math.fsum(z**j / math.factorial(j + k) for j in range(40)) for k in range(len(ratios) + 2)]
    r = torch.tensor(ratios, dtype=torch.float64)
    n = len(ratios)
    if variant == "vary_coeff":
        matrix = torch.stack([r**k / math.factorial(k + 1) for k in range(n)], dim=1).inverse()
        known = n - 1 if newest is not None else n
        total = 0 * answers[0]
        for k, j in itertools.product(range(known), range(known)):
            total = total + z * phis[k + 2] * matrix[k, j] * slopes[j]
        if newest is not None:
            total = total + z * phis[n + 1] * matrix[max(n - 2, 0), -1] * slopes[-1]
        return total
    scale = z if variant == "bh1" else z * phis[1]
    rho = torch.tensor([0.5], dtype=torch.float64)
    if n > 1:
        right = [z * phis[k + 1] * math.factorial(k) / scale for k in range(1, n + 1)]
        rho = torch.linalg.solve(torch.stack([r**k for k in range(n)]), torch.tensor(right, dtype=torch.float64))
    return scale * sum(c * d for c, d in zip(rho, slopes, strict=True))


def webui_unipc(x: Tensor, nodes: list[float], variant: str, order: int, lower_order_final: bool) -> Tensor:
    model, lam, answers = Gaussian("timestep"), [], []

    def snr(t: float) -> float:
        low = min(int(t), 998)
        logs = TABLE.alphas_cumprod[low : low + 2].log() / 2
        log_alpha = float(logs[0] + (logs[1] - logs[0]) * (t - low))
        return log_alpha - 0.5 * math.log(1 - math.exp(2 * log_alpha))

    def levels(t: float) -> tuple[float, float]:
        return 1 / math.sqrt(1 + math.exp(-2 * snr(t))), 1 / math.sqrt(1 + math.exp(2 * snr(t)))

    def ask(x: Tensor, t: float) -> Tensor:
        eps = model.eps(x, torch.full((1, 1, 1, 1), t, dtype=torch.float64))
        return (x - levels(t)[1] * eps) / levels(t)[0]

    lam, answers = [snr(nodes[0])], [ask(x, nodes[0])]
    steps = len(nodes) - 1
    for k in range(1, steps + 1):
        now = k if k < order else min(order, steps + 1 - k) if lower_order_final else order
        (_, before), (alpha, sigma), end = levels(nodes[k - 1]), levels(nodes[k]), snr(nodes[k])
        first = sigma / before * x - alpha * math.expm1(lam[0] - end) * answers[0]
        x = first - alpha * scalar_update(lam[:now], end, variant, answers[:now], None)
        if k < steps:
            answer = ask(x, nodes[k])
            x = first - alpha * scalar_update(lam[:now], end, variant, answers[:now], answer)
            lam, answers = [end, *lam], [answer, *answers]
    return x


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("skip_type", SKIPS)
@pytest.mark.parametrize(("steps", "order"), [(1, 1), (4, 4), (7, 3), (7, 2), (20, 3), (20, 1), (12, 5)])
def test_strength_zero_is_the_webuis_unipc(variant: str, skip_type: str, steps: int, order: int) -> None:
    for lower, img2img in itertools.product((True, False), (True, False)):
        arguments = webui(steps, variant=variant, skip_type=skip_type, order=order, lower_order_final=lower)
        if img2img:
            keep = max(order, len(arguments["timesteps"]) // 2)
            arguments |= {"is_img2img": True, "timesteps": arguments["timesteps"][:keep]}
        x, model = randn(*SHAPE, seed=4), Gaussian("timestep")
        nodes = SOLVERS["UniPC"].schedule(arguments).nodes.tolist()
        assert len(nodes) == len(arguments["timesteps"]) + 1
        found = sample(arguments, EVEN, "quadratic", x, model)
        close(found, webui_unipc(x, nodes, variant, order, lower), 1e-8)
        assert model.nominals == nodes[:-1]


def levels_unipc(x: Tensor, sigmas: list[float], variant: str) -> Tensor:
    """On noise levels the signal is whole and the noise is sigma; 0 at the end is nearly 0."""
    model = Network("eps")

    def ask(x: Tensor, sigma: float) -> Tensor:
        return model.answers(x, torch.full((1, 1, 1, 1), sigma, dtype=torch.float64))[0]

    *inner, last = sigmas
    nodes = [*inner, last or 0.001]
    steps = len(nodes) - 1
    order = min(3, steps - 1)
    lam, answers = [-math.log(nodes[0])], [ask(x, nodes[0])]
    for k in range(1, steps + 1):
        now, end = k if k < order else min(order, steps + 1 - k), -math.log(nodes[k])
        first = nodes[k] / nodes[k - 1] * x - math.expm1(lam[0] - end) * answers[0]
        x = first - scalar_update(lam[:now], end, variant, answers[:now], None)
        if k < steps:
            answer = ask(x, nodes[k])
            x = first - scalar_update(lam[:now], end, variant, answers[:now], answer)
            lam, answers = [end, *lam], [answer, *answers]
    return x


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(("schedule", "steps"), [("karras", 2), ("karras", 3), ("karras", 11), ("no zero", 8)])
def test_strength_zero_is_the_unipc_of_noise_levels(variant: str, schedule: str, steps: int) -> None:
    solver, sigmas = LEVELS["sample_unipc"], schedule_for("eps", schedule, steps)
    x = start_of("eps", sigmas)
    found = run_solver(solver, "eps", sigmas, EVEN, x, options={"variant": variant})
    close(found, levels_unipc(x, sigmas.tolist(), variant), 1e-8)


class Written:
    """A host whose model call another extension writes a factor into, as its list of levels has it from then on."""

    FACTORS = (0.94, 1.0, 0.9, 1.05, 1.0, 0.94, 0.97, 1.1, 0.94, 0.9)

    def __init__(self) -> None:
        self.network, self.asked = Network("eps"), 0
        self.changed: Tensor | None = None

    def factor(self) -> float:
        self.asked += 1
        return self.FACTORS[self.asked - 1]

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        factor = self.factor()
        self.changed = None if factor == 1 else torch.full((len(x), 1, 1, 1), factor, dtype=torch.float64)
        return self.network(x, nominal * factor, level * factor)

    def attention(self) -> None:
        return None


def written_unipc(x: Tensor, sigmas: list[float]) -> Tensor:
    """The host's, in unit variance: it reads every level from the list at the time when it needs it."""
    model, answers = Written(), []
    nodes = [*sigmas[:-1], 0.001]
    steps, order = len(nodes) - 1, 3
    scaled = x / math.sqrt(1 + nodes[0] ** 2)

    def ask(scaled: Tensor, k: int) -> Tensor:
        x = scaled * math.sqrt(nodes[k] ** 2 + 1)
        nodes[k] *= model.factor()
        level = torch.full((1, 1, 1, 1), nodes[k], dtype=torch.float64)
        eps = (x - model.network.answers(x, level)[0]) / nodes[k]
        alpha = 1 / math.sqrt(1 + nodes[k] ** 2)
        return (scaled - nodes[k] * alpha * eps) / alpha

    answers = [ask(scaled, 0)]
    for k in range(1, steps + 1):
        now = k if k < order else min(order, steps + 1 - k)
        lam, end = [-math.log(nodes[k - 1 - back]) for back in range(now)], -math.log(nodes[k])
        before, after = (node / math.sqrt(1 + node**2) for node in nodes[k - 1 : k + 1])
        alpha = 1 / math.sqrt(1 + nodes[k] ** 2)
        first = after / before * scaled - alpha * math.expm1(lam[0] - end) * answers[0]
        scaled = first - alpha * scalar_update(lam, end, "bh1", answers[:now], None)
        if k < steps:
            answer = ask(scaled, k)
            scaled = first - alpha * scalar_update(lam, end, "bh1", answers[:now], answer)
            answers = [answer, *answers]
    return scaled * math.sqrt(1 + nodes[-1] ** 2)


def test_what_another_extension_writes_into_the_hosts_list_stays_there() -> None:
    solver, sigmas = LEVELS["sample_unipc"], schedule_for("eps", "karras", 10)
    x, model = start_of("eps", sigmas), Written()
    found = run_solver(solver, "eps", sigmas, EVEN, x, model=model)
    assert model.asked == len(Written.FACTORS)
    close(found, written_unipc(x, sigmas.tolist()), 1e-8)
    assert (found - levels_unipc(x, sigmas.tolist(), "bh1")).abs().max() > 0.01
    strength = torch.zeros(MAP, dtype=torch.float64)
    strength[..., :2] = 0.7
    lagging = run_solver(solver, "eps", sigmas, FixedRegion(strength), x, model=Written())
    assert bool(lagging.isfinite().all()) and lagging.abs().max() < 10
    moved = (lagging - found).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] == 0).all()) and bool((moved[strength > 0] > 1e-3).all())


def test_a_lagging_pixel_ends_with_the_others() -> None:
    solver, sigmas = LEVELS["sample_unipc"], schedule_for("eps", "karras", 11)
    base = solver.schedule({"sigmas": sigmas})
    assert base.steps == 11 and base.final == 0.001 and base.nominal(11) == 0.001
    strength = torch.zeros(MAP, dtype=torch.float64)
    strength[..., :2] = 0.7
    model, x = Network("eps"), start_of("eps", sigmas)
    found = run_solver(solver, "eps", sigmas, FixedRegion(strength), x, model=model)
    assert bool(found.isfinite().all()) and found.abs().max() < 10
    assert all(
        float(level[..., :2].min()) > nominal
        for level, nominal in zip(model.levels[1:-1], model.nominals[1:-1], strict=True)
    )
    assert torch.equal(model.levels[-1], torch.full(MAP, sigmas.tolist()[-2], dtype=torch.float64))


def test_the_grid() -> None:
    nodes = SOLVERS["UniPC"].schedule(webui(20)).nodes
    assert nodes[0] == 999 and nodes[-1] == 0 and torch.allclose(nodes.diff(), nodes.new_tensor(-999 / 20), atol=1e-3)
    nodes = SOLVERS["UniPC"].schedule(webui(20, skip_type="time_quadratic")).nodes
    roots = ((nodes + 1) / 1000).sqrt()
    assert torch.allclose(roots.diff(), (roots[-1] - roots[0]) / 20, atol=1e-5)
    nodes = SOLVERS["UniPC"].schedule(webui(20, skip_type="logSNR")).nodes
    snr = TABLE.half_log_snr(nodes)
    assert nodes[0] == pytest.approx(999, abs=1e-3) and nodes[-1] == pytest.approx(0, abs=1e-3)
    assert torch.allclose(snr.diff(), (snr[-1] - snr[0]) / 20, atol=1e-3)
    half = webui(20, is_img2img=True) | {"timesteps": webui_timesteps(20)[:10]}
    assert SOLVERS["UniPC"].schedule(half).nodes[0] == pytest.approx(451, abs=1e-3)
    for wrong, message in (({"order": 21}, "order"), ({"skip_type": "cubic"}, "skip type 'cubic'")):
        with pytest.raises(ValueError, match=message):
            SOLVERS["UniPC"].schedule(webui(20, **wrong))


# -- each pixel as if alone


def alone(arguments: dict, region_of: Callable, curve: str, x: Tensor) -> Tensor:
    """Every pixel sampled as a 1x1 latent of one image."""
    result = torch.empty_like(x)
    for b, i, j in itertools.product(range(x.shape[0]), range(x.shape[2]), range(x.shape[3])):
        at = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
        model = Gaussian("timestep", MEAN[at], SPREAD[at])
        result[at] = sample(arguments, region_of(at), curve, x[at], model, randn_like=Noise(at))
    return result


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("curve", "changing"), [("quadratic", False), ("piecewise linear", False), ("exponential", True)]
)
def test_a_pixel_of_a_map_is_the_pixel_alone(variant: str, curve: str, changing: bool) -> None:
    arguments, strength, x = webui(8, variant=variant), STRENGTHS.view(MAP), randn(*SHAPE, seed=5)
    maps = [strength]
    if changing:
        generator = torch.Generator().manual_seed(6)
        maps = [strength * torch.randint(2, MAP, generator=generator) for _ in range(8)]
    found = sample(arguments, Changing(maps), curve, x)
    expected = alone(arguments, lambda at: Changing([m[at[0], :, at[2], at[3]] for m in maps]), curve, x)
    close(found, expected, 1e-12)
    moved = (found - sample(arguments, EVEN, curve, x)).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] == 0).all()), "a pixel on the host's schedule is the host's pixel"
    if not changing:
        assert bool((moved[strength > 0] > 1e-6).all()), "a slow pixel is another one"


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(VARIANTS), st.sampled_from(CURVES), st.integers(4, 30), st.booleans(), st.data())
def test_any_history_of_masks_gives_finite_latents(variant: str, curve: str, steps: int, single: bool, data) -> None:
    strengths = st.sampled_from([0.0, 0.05, 0.4, 0.7, 1.0])
    maps = data.draw(st.lists(st.lists(strengths, min_size=40, max_size=40), min_size=1, max_size=6))
    region = Changing([torch.tensor(m, dtype=torch.float64).view(MAP) for m in maps])
    x = randn(*SHAPE, seed=9)
    found = sample(webui(steps, variant=variant), region, curve, x.float() if single else x)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 20, "the data have a spread of about one"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strength", [0.85, 0.99, 0.9999, 1 - 1e-9, 1.0])
def test_the_change_around_a_pixel_that_hardly_moved_is_not_magnified(variant: str, strength: float) -> None:
    """A network's answer at a pixel also changes with its surroundings; here it does so with the nominal level."""
    seen = []

    class Context(Gaussian):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.append(float(x.abs().max()))
            alpha = TABLE.alpha_at(level)
            return (x - alpha.sqrt() * 0.1 * math.sin(3 * nominal)) / (1 - alpha).sqrt()

    region = FixedRegion.everything(MAP, strength)
    x = randn(*SHAPE, seed=13)
    sample(webui(20, variant=variant), region, "piecewise linear", x, Context("timestep"))
    assert max(seen) < 1.2 * seen[0], "the latent leaves its noise level"


# -- the order of each pixel


def scalar_weights(lam: list[float], end: float, variant: str, corrector: bool) -> list[float]:
    """Weights of the differences, of the authors' matrices: each difference in turn is 1 and the others 0."""
    count = len(lam) - 1 + corrector
    found = []
    for one in range(count):
        values = [torch.tensor(float(k == one), dtype=torch.float64) for k in range(count)]
        newest = values.pop() if corrector else None
        answers = [torch.zeros((), dtype=torch.float64), *values]
        found.append(float(scalar_update(lam, end, variant, answers, newest)))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(VARIANTS),
    st.booleans(),
    st.lists(st.floats(0.15, 1.5), min_size=4, max_size=4),
    st.lists(st.lists(st.floats(-3.0, 0.4), min_size=4, max_size=4), min_size=5, max_size=5),
)
def test_each_pixel_has_the_highest_order_that_is_not_much_larger_than_the_hosts(
    variant: str, corrector: bool, host_steps: list[float], exponents: list[list[float]]
) -> None:
    def nodes(steps: list[float]) -> list[float]:
        """Half-log-SNR, newest first: the end of the step and where the answers are."""
        return [-sum(steps[:k]) for k in range(len(steps) + 1)]

    host = nodes(host_steps)
    own = [nodes([10**e for e in pixel]) for pixel in exponents] + [host]
    end, *lam = torch.tensor(own, dtype=torch.float64).T.view(len(host), 1, 1, 1, -1)
    scalars = [torch.tensor(value, dtype=torch.float64) for value in host]
    found = bounded(lam, end, scalars, variant, corrector).view(len(own), -1)
    assert found.shape[1] == len(lam) - 1 + corrector
    for pixel, mine in enumerate(own):
        expected = [0.0] * found.shape[1]
        if corrector:
            expected[-1:] = scalar_weights(mine[1:2], mine[0], variant, corrector)
        for order in range(2, len(lam) + 1):
            weights = scalar_weights(mine[1 : order + 1], mine[0], variant, corrector)
            size = sum(abs(w) for w in weights)
            largest = 3 * sum(abs(w) for w in scalar_weights(host[1 : order + 1], host[0], variant, corrector))
            assume(abs(size / largest - 1) > 1e-6)
            if size <= largest:
                kept = weights[: order - 1]
                expected = kept + [0.0] * (len(lam) - order) + (weights[-1:] if corrector else [])
        scale = max(abs(w) for w in expected) or 1.0
        assert found[pixel].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


# -- order of convergence


class SmoothSnr(SmoothTable):
    def half_log_snr(self, t: Tensor) -> Tensor:
        alpha = self.alpha_at(t)
        return 0.5 * (alpha.log() - (1 - alpha).log())


@pytest.mark.parametrize(("variant", "order"), [("bh1", 1), ("bh1", 2), ("bh2", 3)])
def test_order_of_convergence_under_a_map(variant: str, order: int) -> None:
    """The corrector adds an order to the predictor's; the figures approach it from below."""
    x, counts, results = randn(*SHAPE, seed=21), [20, 40, 80], []
    table = SmoothSnr(SMOOTH.log_sigmas)
    for count in [*counts, 320]:
        base = BaseSchedule(torch.linspace(990, 50, count + 1, dtype=torch.float64), log=False)
        schedule, region = PixelSchedule(base, MAP, "quadratic"), FixedRegion(STRENGTHS.view(MAP) * 0.9)
        run = Run(Coupled(), schedule, region, x, FromHost(table=table))
        results.append(SOLVERS["UniPC"].sample(run, x, variant=variant, order=order, lower_order_final=False))
    errors = [float((result - results[-1]).norm() / results[-1].norm()) for result in results[:-1]]
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    print(f"\nUniPC {variant} {order}: errors {[f'{e:.1e}' for e in errors]}, orders {[f'{o:.2f}' for o in found]}")
    assert min(found) > order + 0.1
