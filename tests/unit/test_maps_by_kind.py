"""Under a map, for noise levels and rectified flows: each pixel as if alone, and whatever the masks do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.solvers import (
    FLOW_SCHEDULES,
    SCHEDULES,
    SHAPE,
    STRENGTHS,
    Changing,
    Network,
    Noise,
    Tree,
    close,
    randn,
    run_solver,
    schedule_for,
    start_of,
)
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import StepRecord
from asyndm_ext.solvers import FLOW, SNR, SOLVERS, Solver

HAS_A_CLOCK_OF_ITS_OWN = ("DPM fast", "DPM adaptive", "Restart")
DISTINCT = {id(solver): name for name, solver in reversed(SOLVERS.items())}
STEPWISE = {
    name: solver
    for name, solver in SOLVERS.items()
    if DISTINCT[id(solver)] == name and solver.space == "sigma" and name not in HAS_A_CLOCK_OF_ITS_OWN
}
CASES = [
    *(pytest.param(s, "eps", id=f"{name}-eps") for name, s in STEPWISE.items() if not s.flow_only),
    *(pytest.param(s, "flow", id=f"{name}-flow") for name, s in STEPWISE.items()),
    *(pytest.param(s, "flow", id=f"{name}-const") for name, s in FLOW.items()),
    *(pytest.param(s, "flow", id=f"{name}-snr") for name, s in SNR.items()),
]
ROWS = ((0, 0), (1, 1))  # of the first and the second image: between them every strength once


def rows(latent: Tensor) -> Tensor:
    return torch.stack([latent[b, :, i] for b, i in ROWS])


def run(solver: Solver, kind: str, sigmas: Tensor, region, x: Tensor, curve: str, at=(slice(None),) * 4) -> Tensor:
    noise = Noise(at)
    noises = {"randn_like": noise, "noise_sampler": Tree(noise)}
    return run_solver(solver, kind, sigmas, region, x, curve, model=Network(kind, at=at), **noises)


def alone(solver: Solver, kind: str, sigmas: Tensor, region_of: Callable, x: Tensor, curve: str) -> Tensor:
    """Every pixel of ``ROWS`` sampled as a 1x1 latent of one image."""
    result = torch.empty_like(x)
    for b, i in ROWS:
        for j in range(x.shape[3]):
            at = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
            result[at] = run(solver, kind, sigmas, region_of(at), x[at], curve, at)
    return rows(result)


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_a_pixel_of_a_map_is_the_pixel_alone(solver: Solver, kind: str, curve: str) -> None:
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", 10)
    strength, x = STRENGTHS.view(2, 1, 4, 5), start_of(kind, sigmas)
    found = run(solver, kind, sigmas, FixedRegion(strength), x, curve)
    expected = alone(solver, kind, sigmas, lambda at: FixedRegion(strength[at[0], :, at[2], at[3]]), x, curve)
    close(rows(found), expected, 1e-9)
    plain = run(solver, kind, sigmas, FixedRegion.everything((2, 1, 4, 5), 0.0), x, curve)
    moved = (found - plain).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] < 1e-9).all()), "a pixel on the host's schedule is the host's pixel"
    assert bool((moved[strength > 0] > 1e-6).all()), "a slow pixel is another one"


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_a_map_costs_no_model_call(solver: Solver, kind: str, curve: str) -> None:
    """What README and SPEED say; the solvers with a clock of their own are in test_master_clock."""
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", 9)
    calls = []
    for strength in (torch.zeros(2, 1, 4, 5, dtype=torch.float64), STRENGTHS.view(2, 1, 4, 5)):
        model, noise = Network(kind), Noise()
        noises = {"randn_like": noise, "noise_sampler": Tree(noise)}
        x = start_of(kind, sigmas)
        run_solver(solver, kind, sigmas, FixedRegion(strength), x, curve, model=model, **noises)
        calls.append(len(model.nominals))
    assert calls[0] == calls[1] > 0


@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_a_pixel_with_a_changing_mask_is_the_pixel_alone(solver: Solver, kind: str) -> None:
    sigmas = schedule_for(kind, "shifted" if kind == "flow" else "exponential", 8)
    generator = torch.Generator().manual_seed(6)
    maps = [STRENGTHS.view(2, 1, 4, 5) * torch.randint(2, (2, 1, 4, 5), generator=generator) for _ in range(8)]
    x = start_of(kind, sigmas)
    found = run(solver, kind, sigmas, Changing(maps), x, "exponential")
    expected = alone(
        solver, kind, sigmas, lambda at: Changing([m[at[0], :, at[2], at[3]] for m in maps]), x, "exponential"
    )
    close(rows(found), expected, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("steps", [2, 7, 30])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_a_pixel_that_stands_still_stays_finite(solver: Solver, kind: str, steps: int, dtype: torch.dtype) -> None:
    """Strength 1 on the piecewise linear curve: half of the steps have no length, on a flow at sigma 1."""
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", steps)
    x = start_of(kind, sigmas, seed=9).to(dtype)
    strength = torch.ones(2, 1, 4, 5, dtype=torch.float64)
    strength[..., :2] = 0.0
    records: list[StepRecord] = []
    region = FixedRegion(strength)
    found = run_solver(solver, kind, sigmas, region, x, "piecewise linear", watch=records.append)
    levels = [record.level[..., 2:] for record in records]
    assert sum(torch.equal(before, after) for before, after in pairwise(levels)) >= (steps - 1) // 2
    assert bool(found.isfinite().all())
    plain = run_solver(solver, kind, sigmas, FixedRegion.everything((2, 1, 4, 5), 0.0), x, "piecewise linear")
    # The guidance of CFG++ and the hosts' own overshooting leave more than a spread of one.
    assert found.abs().max() < max(20.0, 3 * float(plain.abs().max()))


@pytest.mark.parametrize(("solver", "kind"), CASES)
@settings(max_examples=8)
@given(data=st.data())
def test_any_history_of_masks(solver: Solver, kind: str, data: st.DataObject) -> None:
    steps = data.draw(st.integers(2, 12))
    curve = data.draw(st.sampled_from(CURVES))
    strength = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1 - 1e-9]), st.floats(0, 1))
    maps = data.draw(st.lists(st.lists(strength, min_size=6, max_size=6), min_size=1, max_size=steps))
    region = Changing([torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 3) for values in maps])
    names = FLOW_SCHEDULES if kind == "flow" else SCHEDULES
    sigmas = schedule_for(kind, data.draw(st.sampled_from([name for name in names if name != "no zero"])), steps)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    at = (slice(0, 1), slice(None), slice(0, 2), slice(0, 3))
    x = start_of(kind, sigmas)[at].to(dtype)
    records: list[StepRecord] = []

    def noise(x: Tensor, *_: Tensor) -> Tensor:
        return torch.ones(x.shape or (1, SHAPE[1], 2, 3), dtype=dtype) * (-1) ** torch.arange(3)

    noises = {"randn_like": noise, "noise_sampler": noise}
    model = Network(kind, at=at)
    found = run_solver(solver, kind, sigmas, region, x, curve, model=model, watch=records.append, **noises)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 1e3
    assert len(records) == len(sigmas) - 1
    for before, after in pairwise(records):
        assert bool((after.level <= before.level).all())
    assert bool((records[-1].level == float(sigmas[-2])).all()), "all pixels take the last step together"


@pytest.mark.parametrize("strength", [0.85, 0.9999, 1 - 1e-12, 1.0])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_the_change_around_a_pixel_that_hardly_moved_is_not_magnified(
    solver: Solver, kind: str, strength: float
) -> None:
    """A network's answer at a pixel also changes with its surroundings; here it does so with the nominal level."""
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", 20)
    seen = []

    class Context(Network):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            scale = 1.0 if kind == "flow" else (level**2 + 1).sqrt()
            seen.append(float((x / scale).abs().max()))
            self.last_uncond = torch.full_like(x, 0.1 * torch.tensor(3 * nominal + 1).sin())
            return torch.full_like(x, 0.1 * torch.tensor(3 * nominal).sin())

    x = randn(*SHAPE, seed=13) * sigmas[0]
    noise = Noise()
    for share in (0.0, strength):
        region = FixedRegion.everything((2, 1, 4, 5), share)
        noises = {"randn_like": noise, "noise_sampler": Tree(noise)}
        run_solver(solver, kind, sigmas, region, x, "piecewise linear", model=Context(kind), **noises)
        if share == 0:
            usual, seen = max(seen), []
    assert max(seen) < 1.5 * usual, "the latent leaves its noise level"
