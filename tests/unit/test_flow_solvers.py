"""Ancestral solvers of a rectified flow: their formulas written once more, for one level at a time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_solvers import MEAN, SHAPE, SPREAD, Noise, close, randn
from torch import Tensor

from asyndm_ext.regions import FixedRegion
from asyndm_ext.run import Run, StepRecord
from asyndm_ext.schedule import CURVES, BaseSchedule, PixelSchedule
from asyndm_ext.solvers import FLOW_SOLVERS
from asyndm_ext.solvers.flow import ancestral_step_flow

SIGMAS = [1.0, 0.93, 0.8, 0.62, 0.4, 0.21, 0.0]


class Flow:
    """Exact denoiser of independent Gaussians on ``x = (1-sigma)*x0 + sigma*noise``, bent by a sine."""

    def __init__(self, mean: Tensor = MEAN, spread: Tensor = SPREAD) -> None:
        self.mean, self.spread = mean, spread
        self.nominals: list[float] = []

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.nominals.append(nominal)
        return self.denoised(x, level)

    def denoised(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        left, variance = 1 - sigma, self.spread**2
        gain = left * variance / (left**2 * variance + sigma**2)
        return self.mean + gain * (x - left * self.mean) + 0.1 * (x + sigma).sin()

    def attention(self) -> None:
        return None


class Changing:
    """A region whose strength map is given per step."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps, self.seen = maps, 0

    def observe(self, maps: Tensor | None) -> None:
        self.seen += 1

    def strength(self, progress: float) -> Tensor:
        return self.maps[max(self.seen - 1, 0) % len(self.maps)]


def formula(name: str, model: Flow, x: Tensor, sigmas: list[float], noise: Noise, eta: float) -> Tensor:
    """As the reference implementation has it, on scalars; a step that goes nowhere changes nothing but draws."""
    for here, there in pairwise(sigmas):
        denoised = model.denoised(x, here)
        if there == 0:
            x = denoised
            continue
        down = there * (1 + (there / here - 1) * eta)
        if name == "DPM2 a":
            middle = math.exp((math.log(here) + math.log(down)) / 2)
            slope = (x - denoised) / here
            y = x + slope * (middle - here)
            slope = (y - model.denoised(y, middle)) / middle
            x = x + slope * (down - here)
        else:
            x = down / here * x + (1 - down / here) * denoised
        if here == there:
            noise(x)
            continue
        fade = (1 - there) / (1 - down)
        if eta > 0 or name == "DPM2 a":
            x = fade * x + math.sqrt(max(there**2 - (down * fade) ** 2, 0)) * noise(x)
    return x


def run(name: str, region, curve: str, x: Tensor, watch=None, model=None, noise=None, **options) -> Tensor:
    base = BaseSchedule.from_sigmas(torch.tensor(SIGMAS, dtype=torch.float64))
    schedule = PixelSchedule(base, (x.shape[0], 1, *x.shape[-2:]), curve)
    job = Run(model or Flow(), schedule, region, x, randn_like=noise or Noise(), watch=watch)
    return FLOW_SOLVERS[name].sample(job, x, **options)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_strength_zero_is_the_formula(name: str, eta: float) -> None:
    x, ours, theirs = randn(*SHAPE, seed=3), Noise(), Noise()
    found = run(name, FixedRegion.everything((2, 1, 4, 5), 0.0), "quadratic", x, noise=ours, eta=eta)
    close(found, formula(name, Flow(), x, SIGMAS, theirs, eta), 1e-12)
    assert ours.drawn == theirs.drawn


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_each_pixel_is_sampled_as_if_alone(name: str, curve: str) -> None:
    """Among them one of strength 1, which on the piecewise curve stays at sigma 1 for a while."""
    strength = torch.linspace(0, 1, 40, dtype=torch.float64).view(2, 1, 4, 5)
    x, records = randn(*SHAPE, seed=3), list[StepRecord]()
    model = Flow()
    found = run(name, FixedRegion(strength), curve, x, watch=records.append, model=model)
    assert model.nominals[0] == 1.0
    levels = torch.stack([record.level for record in records])
    stays = curve == "piecewise linear"
    assert bool((levels[1, 1, 0, 3, 4] == 1.0) == stays)
    for b, row, column in [(0, 0, 0), (0, 2, 3), (1, 1, 1), (1, 3, 4)]:
        at = (slice(b, b + 1), slice(None), slice(row, row + 1), slice(column, column + 1))
        sigmas = [*levels[:, b, 0, row, column].tolist(), 0.0]
        alone = formula(name, Flow(MEAN[at], SPREAD[at]), x[at], sigmas, Noise(at), 1.0)
        close(found[at], alone, 1e-9)


@given(
    sigma=st.floats(1e-4, 1.0),
    share=st.floats(0.0, 1.0),
    eta=st.floats(0.0, 1.0),
)
def test_a_step_ends_at_the_noise_level_it_is_to_end_at(sigma: float, share: float, eta: float) -> None:
    """The faded rest of the noise and the fresh noise together have the standard deviation sigma_next."""
    here, there = (torch.tensor(value, dtype=torch.float64) for value in (sigma, sigma * share))
    down, fade, renoise = ancestral_step_flow(here, there, eta)
    assert 0 <= down <= there + 1e-12
    assert float(((down * fade) ** 2 + renoise**2).sqrt()) == pytest.approx(float(there), abs=1e-9)
    if share == 1.0:
        assert (down, fade, renoise) == (there, 1.0, 0.0)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
@given(data=st.data())
def test_any_mask_history_ends_finite(name: str, data: st.DataObject) -> None:
    strength = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1 - 1e-9]), st.floats(0, 1))
    maps = data.draw(st.lists(st.lists(strength, min_size=40, max_size=40), min_size=1, max_size=6))
    region = Changing([torch.tensor(values, dtype=torch.float64).view(2, 1, 4, 5) for values in maps])
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    model = Flow(MEAN.to(dtype), SPREAD.to(dtype))
    found = run(name, region, data.draw(st.sampled_from(CURVES)), randn(*SHAPE, seed=3).to(dtype), model=model)
    assert bool(found.isfinite().all()) and float(found.abs().max()) < 1e3
