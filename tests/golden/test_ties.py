"""States at exactly x.5: float error decides there to which timestep they are rounded, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from recorded import (
    CURVES,
    OWN,
    TIMESTEPS,
    TOLERANCE,
    Case,
    TieBreakingSchedule,
    cases_of,
    check_step,
    reproduce,
    ties,
)
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule

MAP = (2, 1, 6, 6)
CASES = cases_of(OWN)  # whatever ASYNDM_GOLDEN names: what is made of them here is known of these
DYNAMIC = [path for path in CASES if not Case(path).meta["static_mask"]][:1]
NO_NETWORK = pytest.mark.parametrize("path", CASES, ids=[p.stem for p in CASES])


def walk(schedule: PixelSchedule, strengths: Sequence[Tensor], states: Tensor) -> None:
    """The clock alone, compared as in a whole run: ``strengths`` of the lead-in and of each step."""
    schedule.lead_in(strengths[0])
    for i, strength in enumerate(strengths[1:]):
        check_step(i, schedule, states[i])
        schedule.advance(strength)


def official(curve: str, s: Tensor, r: int, k: float, steps: int, tau: float = 1.0) -> Tensor:
    """The authors' update in their float32 and with their order of operations, not our closed forms."""
    T = float(TIMESTEPS)
    if r == 0:
        return torch.zeros_like(s)
    if curve == "linear" or k == 0:
        return s * (1 - 1 / r) + tau / r
    if curve == "bin":
        bend = k * T / steps**2
        t0 = (-bend * r**2 - (tau - s)) / (-2 * bend * r)
        return -bend * (1 - t0) ** 2 + s + bend * t0**2
    return torch.minimum(s - (1 - k) * T / steps, torch.tensor(tau + (1 + k) * (T / steps) * (r - 1)))


def authors_walk(curve: str, k: float, steps: int, seed: int = 5) -> tuple[list[Tensor], Tensor]:
    """Strength maps that change at random, and the float32 states of the authors' arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.ones(MAP), *(torch.randint(2, MAP, generator=generator).float() for _ in range(steps))]
    s, states = torch.full(MAP, TIMESTEPS + 1.0), []
    for done, mask in enumerate(masks):
        r = steps - done
        s = torch.where(mask > 0, official(curve, s, r, k, steps), official("linear", s, r, k, steps))
        states.append(s)
    return [mask.double() * k for mask in masks], torch.stack(states).double()


@pytest.mark.parametrize(
    ("curve", "k", "steps", "tied"),
    [
        ("bin", 0.7, 20, True),
        ("bin", 0.7, 10, False),
        ("bin", 0.7, 50, False),
        ("bin", 0.75, 10, True),
        ("bin", 0.4, 20, False),
        ("linear", 0.5, 16, True),
        ("lin", 0.7, 16, True),
        ("lin", 0.7, 10, True),
    ],
)
def test_the_authors_float32_is_followed_at_ties_and_at_ties_only(curve: str, k: float, steps: int, tied: bool) -> None:
    strengths, states = authors_walk(curve, k, steps)
    base = BaseSchedule.authors_ddim(steps)
    walk(TieBreakingSchedule(states, base, MAP, CURVES[curve]), strengths, states)
    assert bool(ties(states[:-1]).any()) == tied
    if not tied:
        walk(PixelSchedule(base, MAP, CURVES[curve]), strengths, states)


def test_without_the_rule_for_ties_the_authors_float32_is_another_walk() -> None:
    strengths, states = authors_walk("bin", 0.7, 20)
    with pytest.raises(AssertionError, match="timesteps of step"):
        walk(PixelSchedule(BaseSchedule.authors_ddim(20), MAP, "quadratic"), strengths, states)


# -- recorded cases


def shifted(case: Case) -> Case:
    """The same run with its schedule half a timestep higher and states just below x.5: they are rounded as before.

    So all that the network answered stays true, and our own states are ties, half of which round upwards.
    """
    case.offset += 0.5
    states = case.record["state_t"] + 0.5 - 0.4 * TOLERANCE
    states[-1] = 0
    assert (states.round() == case.record["state_t"].round()).all(), "this case has no whole timesteps to shift"
    case.record["state_t"] = states
    return case


def recorded_strengths(case: Case) -> list[Tensor]:
    """Of the lead-in and of each step: the mask that a step ends with is used by the next one."""
    masks = [case.record["init_mask16"]] * 2 + list(case.record["mask16"][:-1])
    return [case.strength_of(torch.from_numpy(mask).bool()) for mask in masks]


class Wrong(TieBreakingSchedule):
    """One pixel is off by some timesteps at one step."""

    step_wrong, by = 0, 1

    def _tick(self, strength: Tensor) -> Tensor:
        level = super()._tick(strength).clone()
        if self._updates_done - 1 == self.step_wrong:
            level[-1, 0, 40, 3] += self.by
        self.level = level
        return level


def wrong(case: Case, step: int, by: int) -> Wrong:
    schedule = case.schedule()
    schedule.__class__ = Wrong
    schedule.step_wrong, schedule.by = step, by
    return schedule


@pytest.mark.parametrize("path", DYNAMIC, ids=[p.stem for p in DYNAMIC])
def test_a_recorded_run_all_of_ties_is_reproduced(path) -> None:
    case = shifted(Case(path))
    assert bool(ties(case.states[:-1]).all())
    reproduce(case)


@pytest.mark.parametrize("path", DYNAMIC, ids=[p.stem for p in DYNAMIC])
def test_a_whole_run_with_one_wrong_timestep_is_not(path) -> None:
    case = Case(path)
    with pytest.raises(AssertionError, match="timesteps of step 1"):
        reproduce(case, wrong(case, 1, 1))
    case = shifted(case)
    plain = PixelSchedule(case.schedule().base, case.shape, CURVES[case.meta["curve"]])
    with pytest.raises(AssertionError, match="timesteps of step"):
        reproduce(case, plain)


@NO_NETWORK
def test_the_recorded_masks_lead_to_the_recorded_timesteps(path) -> None:
    case = Case(path)
    walk(case.schedule(), recorded_strengths(case), case.states)


@pytest.mark.parametrize("by", [1, -1])
@NO_NETWORK
def test_one_wrong_timestep_of_one_pixel_fails_at_any_step(path, by: int) -> None:
    case = Case(path)
    for step in range(case.steps):
        with pytest.raises(AssertionError, match=f"timesteps of step {step}$"):
            walk(wrong(case, step, by), recorded_strengths(case), case.states)


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("path", DYNAMIC, ids=[p.stem for p in DYNAMIC])
def test_at_a_tie_no_timestep_but_the_recorded_neighbour_passes(path, by: int) -> None:
    case = shifted(Case(path))
    walk(case.schedule(), recorded_strengths(case), case.states)
    for step in range(case.steps):
        with pytest.raises(AssertionError, match=f"timesteps of step {step}$"):
            walk(wrong(case, step, by), recorded_strengths(case), case.states)


@NO_NETWORK
def test_a_wrong_state_fails_whether_it_is_a_tie_or_not(path) -> None:
    """Half a timestep off, the recorded state is a tie of its own and its rounding would be followed."""
    for step in (1, 5):
        for by in (0.5, 1.0, 2 * TOLERANCE):
            case = Case(path)
            case.record["state_t"][step, 0, 10, 20] += by
            with pytest.raises(AssertionError, match=f"state of step {step}$"):
                walk(case.schedule(), recorded_strengths(case), case.states)
