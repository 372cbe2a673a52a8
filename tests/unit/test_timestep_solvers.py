"""PLMS and DDIM CFG++: the host's results on its own schedule, each pixel as if alone, order."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
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
    Noise,
    close,
    randn,
    sample,
    webui_timesteps,
)
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.solvers.adams import LARGEST_GAIN, adams_bashforth

MAP = (2, 1, 4, 5)
EVEN = FixedRegion.everything(MAP, 0.0)
CASES = [("PLMS", {}), ("DDIM CFG++", {"eta": 0.0}), ("DDIM CFG++", {"eta": 0.7})]


class Guided(Gaussian):
    """Its answer without the prompt is about another mean."""

    def __init__(self, mean: Tensor = MEAN, spread: Tensor = SPREAD) -> None:
        super().__init__("timestep", mean, spread)
        self.last_uncond: Tensor | None = None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.last_uncond = self.unguided(x, level)
        return super().__call__(x, nominal, level)

    def unguided(self, x: Tensor, t: Tensor) -> Tensor:
        return self.eps(x, t) + 0.1 * (3 * x - t / 200).cos()


# -- the WebUI's functions, restated with Python floats


def ddim_to(x: Tensor, eps: Tensor, direction: Tensor, here: float, there: float, std: float = 0.0) -> Tensor:
    clean = (x - math.sqrt(1 - here) * eps) / math.sqrt(here)
    return math.sqrt(there) * clean + math.sqrt(1 - there - std**2) * direction


def walk(timesteps: Tensor) -> list[tuple[Tensor, float, Tensor, float]]:
    """Per step: timestep and alpha at its start, timestep and alpha at its end."""
    down = [torch.full((1, 1, 1, 1), float(t), dtype=torch.float64) for t in timesteps.flip(0)]
    alphas = [float(TABLE.alphas_cumprod[int(t)]) for t in timesteps.flip(0)]
    return [(down[k], alphas[k], down[k + 1], alphas[k + 1]) for k in range(len(down) - 1)]


def webui_plms(x: Tensor, timesteps: Tensor) -> Tensor:
    model, seen = Guided(), []
    coefficients = [(), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24)]
    for t, here, t_next, there in walk(timesteps):
        seen.insert(0, model.eps(x, t))
        order = min(len(seen), 4)
        if order == 1:
            mean = (seen[0] + model.eps(ddim_to(x, seen[0], seen[0], here, there), t_next)) / 2
        else:
            mean = sum(c * eps for c, eps in zip(coefficients[order - 1], seen, strict=False))
        x = ddim_to(x, mean, mean, here, there)
    return x


def webui_cfgpp(x: Tensor, timesteps: Tensor, eta: float, noise: Noise) -> Tensor:
    model = Guided()
    for t, here, _, there in walk(timesteps):
        std = eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there))
        x = ddim_to(x, model.eps(x, t), model.unguided(x, t), here, there, std) + std * noise(x)
    return x


# The first of 9 or 27 steps is cut short by the last timestep; the host's coefficients do not mind.
@pytest.mark.parametrize("steps", [2, 3, 5, 9, 20, 27])
def test_strength_zero_is_the_webuis_plms(steps: int) -> None:
    timesteps, x, model, noise = webui_timesteps(steps), randn(*SHAPE, seed=4), Guided(), Noise()
    base = BaseSchedule.from_timesteps(timesteps.flip(0))
    found = sample("PLMS", base, EVEN, "quadratic", x, model=model, noise=noise)
    close(found, webui_plms(x, timesteps), 1e-12)
    down = timesteps.flip(0).tolist()
    assert model.nominals == [down[0], down[1], *down[1:-1]]
    assert noise.drawn == 0


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [2, 9, 20])
def test_strength_zero_is_the_webuis_cfgpp(steps: int, eta: float) -> None:
    timesteps, x, model = webui_timesteps(steps), randn(*SHAPE, seed=4), Guided()
    their_noise, our_noise = Noise(), Noise()
    base = BaseSchedule.from_timesteps(timesteps.flip(0))
    found = sample("DDIM CFG++", base, EVEN, "quadratic", x, model=model, noise=our_noise, eta=eta)
    close(found, webui_cfgpp(x, timesteps, eta, their_noise), 1e-12)
    assert model.nominals == timesteps.flip(0)[:-1].tolist()
    assert our_noise.drawn == their_noise.drawn == base.steps


def test_cfgpp_needs_a_model_that_tells_its_answer_without_the_prompt() -> None:
    base = BaseSchedule.from_timesteps(webui_timesteps(5).flip(0))
    with pytest.raises(RuntimeError, match="without the prompt"):
        sample("DDIM CFG++", base, EVEN, "linear", randn(*SHAPE, seed=4))
    assert SOLVERS["DDIM CFG++"].uncond
    assert SOLVERS["DDIM CFG++"].guidance == 1 / 12.5
    others = {name: solver for name, solver in SOLVERS.items() if name != "DDIM CFG++"}
    assert all(solver.uncond == ("CFG++" in name) and solver.guidance == 1 for name, solver in others.items())


# -- each pixel as if alone


def alone(name: str, base: BaseSchedule, region_of: Callable, curve: str, x: Tensor, options: dict) -> Tensor:
    """Every pixel sampled as a 1x1 latent of one image."""
    result = torch.empty_like(x)
    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                at = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
                model = Guided(MEAN[at], SPREAD[at])
                result[at] = sample(name, base, region_of(at), curve, x[at], model=model, noise=Noise(at), **options)
    return result


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_pixel_of_a_map_is_the_pixel_alone(name: str, options: dict, curve: str) -> None:
    base = BaseSchedule.from_timesteps(webui_timesteps(10).flip(0))
    strength = STRENGTHS.view(MAP)
    x = randn(*SHAPE, seed=5)
    found = sample(name, base, FixedRegion(strength), curve, x, model=Guided(), **options)
    expected = alone(name, base, lambda at: FixedRegion(strength[at[0], :, at[2], at[3]]), curve, x, options)
    close(found, expected, 1e-12)
    plain = sample(name, base, EVEN, curve, x, model=Guided(), **options)
    moved = (found - plain).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] == 0).all()), "a pixel on the host's schedule is the host's pixel"
    if curve != "linear":
        assert bool((moved[strength > 0] > 1e-6).all()), "a slow pixel is another one"


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from(CURVES), st.integers(2, 40), st.data())
def test_any_history_of_masks_gives_finite_latents(case, curve: str, steps: int, data) -> None:
    name, options = case
    strengths = st.sampled_from([0.0, 0.05, 0.4, 0.7, 1.0])
    maps = data.draw(st.lists(st.lists(strengths, min_size=40, max_size=40), min_size=1, max_size=6))
    region = Changing([torch.tensor(m, dtype=torch.float64).view(MAP) for m in maps])
    base = BaseSchedule.from_timesteps(webui_timesteps(steps).flip(0))
    x = randn(*SHAPE, seed=9)
    found = sample(name, base, region, curve, x.float() if steps % 2 else x, model=Guided(), **options)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 30, "the data have a spread of about one"


# -- Adams-Bashforth


def test_adams_bashforth_of_equal_steps_has_the_known_coefficients() -> None:
    known = {2: [18 / 12, -6 / 12], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    for order, expected in known.items():
        nodes = [torch.tensor(7.0 - k, dtype=torch.float64) for k in range(order)]
        found = adams_bashforth(nodes, torch.tensor(8.0, dtype=torch.float64))
        assert [float(c) for c in found] == pytest.approx(expected, rel=1e-14)


def test_adams_bashforth_integrates_polynomials_and_lowers_the_order_where_steps_shrink() -> None:
    nodes = [torch.tensor(values, dtype=torch.float64) for values in ([3.0, 3.0, 3.0, 3.0], [2.2, 2.0, 2.999, 3.0])]
    nodes += [torch.tensor(values, dtype=torch.float64) for values in ([1.0, 1.1, 2.0, 3.0], [0.3, 0.0, 1.0, 3.0])]
    end = torch.tensor([3.9, 4.0, 4.0, 4.0], dtype=torch.float64)
    weights = adams_bashforth(nodes, end)
    for power, exact_for in ((0, (0, 1, 2, 3)), (1, (0, 1)), (2, (0, 1)), (3, (0, 1))):
        means = sum(w * node**power for w, node in zip(weights, nodes, strict=True))
        exact = (end ** (power + 1) - nodes[0] ** (power + 1)) / ((power + 1) * (end - nodes[0]))
        for pixel in exact_for:
            assert float(means[pixel]) == pytest.approx(float(exact[pixel]), rel=1e-12)
    assert [float(w[2]) for w in weights] == [1, 0, 0, 0]
    assert [float(w[3]) for w in weights] == [1, 0, 0, 0]
    assert torch.stack(weights).abs().sum(dim=0).max() <= LARGEST_GAIN
    standing = adams_bashforth(nodes, nodes[0])
    assert torch.equal(torch.stack(standing)[:, 0], torch.tensor([1.0, 0, 0, 0], dtype=torch.float64))


@given(st.lists(st.floats(-2.5, 0.5), min_size=5, max_size=5))
def test_adams_bashforth_takes_the_highest_order_that_magnifies_tenfold_at_most(exponents: list[float]) -> None:
    steps = [10**e for e in exponents]
    places = [-sum(steps[:k]) for k in range(5)]  # the end of the step and four nodes, newest first
    end, *nodes = (torch.tensor([place], dtype=torch.float64) for place in places)
    expected = [1.0, 0.0, 0.0, 0.0]
    for order in (2, 3, 4):
        at, weights = places[1 : order + 1], []
        for own in at:
            basis = np.polynomial.Polynomial([1.0])
            for other in at:
                if other != own:
                    basis = basis * np.polynomial.Polynomial([-other, 1.0]) / (own - other)
            integral = basis.integ()
            weights.append(float(integral(places[0]) - integral(at[0])) / steps[0])
        gain = sum(abs(w) for w in weights)
        assume(abs(gain / 10 - 1) > 1e-6)
        if gain <= 10:
            expected = weights + [0.0] * (4 - order)
    found = [float(w) for w in adams_bashforth(nodes, end)]
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


# -- order of convergence


class SmoothTable(NoiseTable):
    """A cosine schedule without steps, so that nothing is rounded but the sums."""

    def alpha_at(self, t: Tensor) -> Tensor:
        return (t / 1000 * 1.4 + 0.05).cos() ** 2


class Coupled:
    """An eps that depends smoothly on its own level and on all pixels of the latent."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        a = SMOOTH.alpha_at(level)
        posterior = (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a)
        return posterior + 0.2 * (x.mean(dim=(-2, -1), keepdim=True) + level / 300).sin()

    def attention(self) -> None:
        return None


SMOOTH = SmoothTable(torch.linspace(-3, 3, 1000, dtype=torch.float64))


def orders(name: str, counts: list[int], base_of: Callable[[int], BaseSchedule], **options) -> list[float]:
    """The order that each doubling of the steps shows, under a fixed map of strengths 0 to 0.9."""
    x = randn(*SHAPE, seed=21)
    results = []
    for count in [*counts, 8 * counts[-1]]:
        schedule = PixelSchedule(base_of(count), MAP, "quadratic")
        run = Run(Coupled(), schedule, FixedRegion(STRENGTHS.view(MAP) * 0.9), x, FromHost(table=SMOOTH))
        results.append(SOLVERS[name].sample(run, x, **options))
    errors = [float((result - results[-1]).norm() / results[-1].norm()) for result in results[:-1]]
    found = [math.log2(a / b) for a, b in pairwise(errors)]
    print(f"\n{name}: steps {counts}, errors {[f'{e:.1e}' for e in errors]}, orders {[f'{o:.2f}' for o in found]}")
    return found


def test_plms_converges_at_second_order_under_a_map() -> None:
    def base(steps: int) -> BaseSchedule:
        return BaseSchedule(torch.linspace(999, 1, steps + 1, dtype=torch.float64), log=False)

    assert min(orders("PLMS", [20, 40, 80, 160], base)) > 1.8
    first_order = orders("DDIM", [20, 40, 80], base)
    assert max(first_order) < 1.3, "the test tells orders apart"
