"""Every schedule type of the hosts, for noise levels and a rectified flow, from 1 to 60 steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from support.host_schedules import SCHEDULE_TYPES, discard_next_to_last, flow_levels, noise_levels
from support.solvers import Network, Noise, Tree, percent_to_sigma, randn, run_solver

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule, UnusableSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.solvers import SNR, SOLVERS

LEVELS = {"eps": noise_levels(), "flow": flow_levels()}
# From three steps on. The hosts' own pictures are black with the first; the others are not made for these models.
REFUSED = {
    ("flow", "Uniform"): "sigma 0 before its last step",
    ("eps", "Cosine-exponential Blend"): "rises",
    ("flow", "Cosine-exponential Blend"): "rises",
    ("flow", "Align Your Steps, of the model"): "rises",
    ("flow", "Align Your Steps GITS, of the model"): "rises",
}
HAS_A_CLOCK_OF_ITS_OWN = ("DPM fast", "DPM adaptive", "Restart")
STRENGTH = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64).view(1, 1, 1, 4)


@pytest.mark.parametrize("penultimate", [True, False], ids=["whole", "penultimate discarded"])
@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("name", SCHEDULE_TYPES)
def test_pixels_walk_down_the_hosts_schedule(name: str, kind: str, penultimate: bool) -> None:
    make, levels = SCHEDULE_TYPES[name], LEVELS[kind]
    refused = 0
    for n in range(1, 61):
        sigmas = make(n, levels) if penultimate else discard_next_to_last(make, n, levels)
        try:
            base = BaseSchedule.from_sigmas(sigmas)
        except UnusableSchedule as error:
            assert REFUSED[kind, name] in str(error)
            assert bool((sigmas[1:] > sigmas[:-1]).any()) or bool((sigmas[:-1] == 0).any())
            refused += 1
            continue
        assert base.steps == len(sigmas) - 1
        assert [base.nominal(i) for i in range(len(sigmas))] == sigmas.double().tolist()
        for curve in ("quadratic", "piecewise linear") if n in (1, 2, 3, 4, 7, 20, 59, 60) else ():
            schedule = PixelSchedule(base, (1, 1, 1, 4), curve)
            walk = [schedule.level, *(schedule.advance(STRENGTH) for _ in range(base.steps))]
            assert all(bool((after <= before).all()) for before, after in pairwise(walk))
            assert bool((walk[-1] == float(sigmas[-1])).all())
            assert [float(level[..., 0]) for level in walk] == sigmas.double().tolist(), "strength 0 is the host"
            if base.lags and sigmas[1] < sigmas[0]:
                assert bool((walk[1][..., 1:] > walk[1][..., :1]).all()), "slow pixels lag"
    if penultimate:
        assert (refused > 0) == ((kind, name) in REFUSED)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_on_every_schedule_type(name: str, kind: str) -> None:
    solver = SOLVERS[name]
    if solver.space == "timestep" or (solver.flow_only and kind != "flow"):
        pytest.skip("not for these levels")
    percent = percent_to_sigma(kind)
    strength = torch.tensor([0.0, 0.8], dtype=torch.float64).view(1, 1, 1, 2)
    at = (slice(0, 1), slice(None), slice(0, 1), slice(0, 2))
    noise = Noise(at)
    for label, make in SCHEDULE_TYPES.items():
        for n in (1, 2, 6):
            if (kind, label) in REFUSED:
                continue
            sigmas = make(n, LEVELS[kind])
            if kind == "flow" and sigmas[0] > 1 and not label.endswith("of the model"):
                continue  # Align Your Steps as it is: the noise levels of SD
            if len(sigmas) < 3 and solver.own_schedule and "n" in solver.options:
                continue
            x = randn(2, 3, 4, 5, seed=5)[at] * float(sigmas[0])
            ends = {"sigma_max": sigmas[0], "sigma_min": sigmas[sigmas > 0][-1], "n": n}
            if sigmas[0] == ends["sigma_min"] and name.startswith("DPM "):
                continue  # nothing to step over
            arguments = {"sigmas": sigmas, "flow": kind == "flow", "percent_to_sigma": percent, **ends}
            base = solver.schedule(arguments)
            found = run_solver(
                solver,
                kind,
                sigmas,
                FixedRegion(strength),
                x,
                base=base,
                options=solver.chosen(arguments),
                model=Network(kind, at=at),
                randn_like=noise,
                noise_sampler=Tree(noise),
            )
            assert bool(found.isfinite().all()), f"{label}, {n} steps"
            # The hosts' own picture may leave all bounds where few steps are very long.
            assert found[..., 1].abs().max() < 1e3, f"{label}, {n} steps"


@pytest.mark.parametrize("function", SNR)
def test_half_log_snr_forms_on_every_schedule_type(function: str) -> None:
    for label, make in SCHEDULE_TYPES.items():
        for n in (1, 2, 6, 20):
            sigmas = make(n, LEVELS["flow"])
            if ("flow", label) in REFUSED or sigmas[0] > 1:
                continue
            x = randn(2, 3, 4, 5, seed=5) * float(sigmas[0])
            region = FixedRegion.everything((2, 1, 4, 5), 0.8)
            noise = Noise()
            noises = {"randn_like": noise, "noise_sampler": Tree(noise)}
            found = run_solver(SNR[function], "flow", sigmas, region, x, **noises)
            assert bool(found.isfinite().all()), f"{label}, {n} steps"


def test_a_schedule_of_one_sigma_has_no_steps() -> None:
    for sigma in (14.6, 0.0):
        base = BaseSchedule.from_sigmas(torch.tensor([sigma]))
        assert base.steps == 0
        assert not base.lags
        x = randn(2, 3, 4, 5, seed=5)
        region = FixedRegion.everything((2, 1, 4, 5), 0.8)
        for name, solver in SOLVERS.items():
            if solver.space == "sigma" and name not in HAS_A_CLOCK_OF_ITS_OWN:
                found = run_solver(solver, "flow", torch.tensor([sigma]), region, x, base=base)
                assert torch.equal(found, x), name


@pytest.mark.parametrize(("count", "lags"), [(1, False), (2, False), (3, True), (4, True)])
def test_lag_takes_three_steps_to_zero(count: int, lags: bool) -> None:
    """All pixels start together and take the last step together."""
    sigmas = SCHEDULE_TYPES["Karras"](count, LEVELS["eps"])
    base = BaseSchedule.from_sigmas(sigmas)
    assert base.lags == lags
    schedule = PixelSchedule(base, (1, 1, 1, 4), "quadratic")
    spread = [float((level := schedule.advance(STRENGTH)).max() - level.min()) for _ in range(base.steps)]
    assert (max(spread) > 0) == lags


def test_what_is_refused_says_why() -> None:
    with pytest.raises(UnusableSchedule, match="rises from sigma 1 to 2 in step 2"):
        BaseSchedule.from_sigmas(torch.tensor([3.0, 1.0, 2.0, 0.0]))
    with pytest.raises(UnusableSchedule, match=r"sigma 0 before its last step \(step 2\)"):
        BaseSchedule.from_sigmas(torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(UnusableSchedule, match="negative or not finite"):
        BaseSchedule.from_sigmas(torch.tensor([1.0, float("nan"), 0.0]))
    with pytest.raises(UnusableSchedule, match="no sigmas"):
        BaseSchedule.from_sigmas(torch.tensor([]))
