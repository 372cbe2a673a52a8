"""The clock: closed forms against the authors' formulas, Proposition 1, limits, and the host's own sigmas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asyndm_ext.clock.curves import CURVES, curve_height, next_height
from asyndm_ext.clock.schedule import BaseSchedule, PixelClock, PixelSchedule, UnusableSchedule

AUTHORS = ("quadratic", "piecewise linear", "exponential")
CONCAVE = (*AUTHORS, "head start")
TIMESTEPS = 1000

strengths = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0), st.sampled_from([0.05, 0.4, 0.7, 0.95]))


def grow(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def walk(curve: str, history: list[list[float]]) -> Tensor:
    """Heights ``(steps+1, pixels)`` of a clock that is fed one row of strengths per step."""
    clock = PixelClock((1, 1, 1, len(history[0])), len(history), curve)
    heights = [clock.height.flatten()]
    heights += [clock.advance(grow(row)).flatten() for row in history]
    return torch.stack(heights)


@st.composite
def histories(draw: st.DrawFn) -> list[list[float]]:
    """Per step, the strength of each of five pixels."""
    steps = draw(st.integers(1, 60))
    few = draw(st.lists(strengths, min_size=1, max_size=4))
    choice = st.sampled_from([0.0, *few]) if draw(st.booleans()) else strengths
    return draw(st.lists(st.lists(choice, min_size=5, max_size=5), min_size=steps, max_size=steps))


# -- what holds for every history


@given(st.sampled_from(CURVES), histories())
def test_heights_never_rise_and_all_end_at_zero(curve: str, history: list[list[float]]) -> None:
    heights = walk(curve, history)
    assert bool((heights[0] == 1).all())
    assert bool((heights[1:] <= heights[:-1]).all())
    assert bool((heights >= 0).all())
    assert bool((heights[-1] == 0).all())


@given(st.sampled_from(CURVES), strengths, st.integers(1, 60), st.data())
def test_one_strength_stays_between_the_line_and_its_curve(curve: str, w: float, steps: int, data) -> None:
    masks = data.draw(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=steps, max_size=steps))
    heights = walk(curve, [[w * on for on in row] for row in masks])
    u = torch.arange(steps + 1, dtype=torch.float64).view(-1, 1) / steps
    assert bool((heights >= 1 - u - 1e-9).all())
    assert bool((heights <= curve_height(curve, u, w) + 1e-9).all())


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("w", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_always_slow_is_the_unshifted_curve(curve: str, w: float, steps: int) -> None:
    heights = walk(curve, [[w]] * steps).flatten()
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    assert (heights - curve_height(curve, u, w)).abs().max() < 1e-12
    straight = 1 - u
    if w > 0 and curve != "linear" and steps > 1:
        assert (heights - straight).max() > 0.01 * w, "a slow pixel has to lag"
    else:
        assert (heights - straight).abs().max() < 1e-12


def test_a_pixel_keeps_its_lag_share_when_it_turns_fast() -> None:
    # Strength 0 from a lagging state is the straight line to the end, for every curve.
    for curve in CONCAVE:
        heights = walk(curve, [[0.7]] * 10 + [[0.0]] * 10).flatten()
        line = heights[10] * torch.linspace(1, 0, 11, dtype=torch.float64)
        assert (heights[10:] - line).abs().max() < 1e-12


def test_pixels_do_not_see_each_other() -> None:
    history = [[0.7 * ((i + j) % 3 == 0) for j in range(4)] for i in range(20)]
    for curve in CURVES:
        together = walk(curve, history)
        for j in range(4):
            alone = walk(curve, [[row[j]] for row in history]).flatten()
            assert torch.equal(together[:, j], alone)


# -- the authors' formulas, as they wrote them (timesteps, solved for the shift of the curve)


def authors_update(curve: str, s: float, r: int, k: float, steps: int) -> float:
    """One update of the authors' code: state ``s`` in timesteps, ``r`` rest steps, strength ``k``."""
    tau = 1.0
    if curve == "quadratic":
        big_k = k * TIMESTEPS / steps**2
        t0 = (-big_k * r**2 - (tau - s)) / (-2 * big_k * r)
        y0 = s + big_k * t0**2
        return -big_k * (1 - t0) ** 2 + y0
    if curve == "piecewise linear":
        slow = s - (1 - k) * TIMESTEPS / steps
        fast = tau + (1 + k) * (TIMESTEPS / steps) * (r - 1)
        return min(slow, fast)
    lam, b, a = 1 / steps, -(1 - k) * TIMESTEPS / steps, -k * TIMESTEPS / (math.e - 1)
    shift = (s - tau + b * r) / (a * (1 - math.exp(lam * r)))  # e^(-lam*x0)
    return a * (math.exp(lam) - 1) * shift + b + s


@given(
    st.sampled_from(AUTHORS),
    st.integers(2, 60),
    st.floats(0.05, 0.95),
    st.data(),
)
def test_closed_form_equals_the_authors_update(curve: str, steps: int, w: float, data) -> None:
    masks = data.draw(st.lists(st.booleans(), min_size=steps - 1, max_size=steps - 1))
    s = TIMESTEPS + 1.0
    v = torch.ones((), dtype=torch.float64)
    strength = torch.tensor(w, dtype=torch.float64)
    for i, slow in enumerate(masks):
        rest = steps - i
        s = authors_update(curve, s, rest, w, steps) if slow else s * (1 - 1 / rest) + 1 / rest
        v = next_height(curve, v, rest / steps, 1 / steps, strength * slow)
        assert abs(1 + TIMESTEPS * float(v) - s) < 1e-9 * TIMESTEPS
        assert abs(float(v) - (s - 1) / TIMESTEPS) < 1e-9


@given(st.sampled_from(CONCAVE), st.floats(0.05, 1.0), st.floats(0.02, 0.9), st.floats(0, 1), st.floats(0.01, 0.99))
def test_next_height_is_on_the_shifted_copy(curve: str, w: float, u: float, share: float, part: float) -> None:
    """Proposition 1: the copy through (u, v) and (1, 0), found by bisection, goes on to next_height."""

    def f(x: float) -> float:
        return float(curve_height(curve, torch.tensor(x, dtype=torch.float64), w))

    # Any reachable height lies between the two copies with no shift (a = 0) and the largest (a = u).
    lowest, highest = f(0.0) - f(1 - u), f(u)
    v = lowest + share * (highest - lowest)
    low, high = 0.0, u
    for _ in range(200):
        a = (low + high) / 2
        if f(u - a) - f(1 - a) < v:
            high = a
        else:
            low = a
    lift = -f(1 - a)
    assert abs(f(u - a) + lift - v) < 1e-12, "the copy passes through (u, v)"
    assert abs(f(1 - a) + lift) < 1e-12, "and through (1, 0)"
    h = part * (1 - u)
    found = next_height(curve, torch.tensor(v, dtype=torch.float64), 1 - u, h, torch.tensor(w, dtype=torch.float64))
    assert abs(float(found) - (f(u + h - a) + lift)) < 1e-9


# -- numbers of the paper and of the authors' code


def test_two_strengths_on_the_piecewise_linear_curve_drop_178_timesteps() -> None:
    drops = []
    for switch in range(1, 50):
        heights = walk("piecewise linear", [[0.7]] * switch + [[0.4]] * (50 - switch)).flatten()
        drops.append(float(TIMESTEPS * (heights[switch] - heights[switch + 1])))
    assert round(max(drops), 6) == 178


@pytest.mark.parametrize(
    ("curve", "per_strength"),
    [("quadratic", 250), ("piecewise linear", 500), ("exponential", 123.3), ("head start", 250)],
)
@pytest.mark.parametrize("w", [0.1, 0.4, 0.7, 1.0])
def test_largest_lag(curve: str, per_strength: float, w: float) -> None:
    heights = walk(curve, [[w]] * 1000).flatten()
    lag = TIMESTEPS * (heights - torch.linspace(1, 0, 1001, dtype=torch.float64)).max()
    assert abs(float(lag) - per_strength * w) < 0.051 * w


def test_a_head_start_is_a_wait_then_the_hosts_stride_then_a_race() -> None:
    heights = walk("head start", [[1.0]] * 20).flatten()
    expected = [1.0] * 6 + [0.95, 0.9, 0.85, 0.8, 0.75] + [0.75 * (1 - i / 10) for i in range(1, 11)]
    assert (heights - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-12


def test_the_curve_of_the_wind_tunnel_is_the_products() -> None:
    """tests/lag_rules.py walks the two handles by another formula."""
    from tests.lag_rules import handles

    rule = handles(0.25, 0.5)
    for w in ([1.0, 0.7, 0.3, 0.0], [0.0, 1.0, 1.0, 0.2]):
        v, theirs = torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
        for step in range(29):
            strength = grow([x * (step % 7 != 3 or x < 0.5) for x in w]).flatten()
            v = next_height("head start", v, 1 - step / 30, 1 / 30, strength)
            theirs = rule(theirs, 1 - step / 30, 1 / 30, strength, None).clamp(0, 1)
            assert (v - theirs).abs().max() < 1e-12


# -- schedules


def karras(n: int, low: float = 0.03, high: float = 14.6) -> Tensor:
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    return torch.cat([(high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7, torch.zeros(1).double()])


def exponential(n: int, low: float = 0.03, high: float = 14.6) -> Tensor:
    levels = torch.linspace(math.log(high), math.log(low), n, dtype=torch.float64).exp()
    return torch.cat([levels, torch.zeros(1).double()])


def levels_of(base: BaseSchedule, curve: str, history: list[list[float]]) -> Tensor:
    """Level maps ``(steps+1, pixels)``."""
    schedule = PixelSchedule(base, (1, 1, 1, len(history[0])), curve)
    levels = [schedule.level.flatten()]
    levels += [schedule.advance(grow(row)).flatten() for row in history]
    return torch.stack(levels)


@pytest.mark.parametrize("make", [karras, exponential])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ends_at_zero", [True, False])
@pytest.mark.parametrize("n", [2, 3, 20, 61, 1000])
def test_strength_zero_is_the_host_to_the_last_bit(make, dtype, ends_at_zero: bool, n: int) -> None:
    sigmas = make(n).to(dtype)
    if not ends_at_zero:
        sigmas = sigmas[:-1]
    base = BaseSchedule.from_sigmas(sigmas)
    assert base.steps == len(sigmas) - 1
    for curve in CURVES:
        levels = levels_of(base, curve, [[0.0]] * base.steps).flatten()
        assert torch.equal(levels, sigmas.double())
        assert torch.equal(levels.to(dtype), sigmas)
    assert [base.nominal(i) for i in range(base.steps + 1)] == sigmas.tolist()


@given(st.sampled_from(CURVES), histories(), st.sampled_from([karras, exponential]), st.booleans())
def test_sigmas_fall_together_to_zero(curve: str, history: list[list[float]], make, ends_at_zero: bool) -> None:
    sigmas = make(len(history)) if ends_at_zero else make(len(history) + 1)[:-1]
    levels = levels_of(BaseSchedule.from_sigmas(sigmas), curve, history)
    assert bool((levels[0] == sigmas[0]).all())
    assert bool((levels[1:] <= levels[:-1]).all())
    assert bool((levels[-1] == sigmas[-1]).all())
    if ends_at_zero:
        assert bool((levels[-2] == sigmas[-2]).all()), "one common last step"
        assert bool((levels[:-1] > 0).all())
    assert bool((levels >= sigmas.view(-1, 1) * (1 - 1e-12)).all()), "no pixel is ahead of the host"


def test_levels_between_nodes_are_interpolated_in_the_logarithm() -> None:
    base = BaseSchedule.from_sigmas(torch.tensor([8.0, 4.0, 1.0, 0.0]))
    v = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64)
    expected = torch.tensor([8.0, 32**0.5, 4.0, 2.0, 1.0], dtype=torch.float64)
    assert (base.at_height(v) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    "sigmas",
    [
        [],
        [0.0, 0.0],
        [1.0, 2.0],
        [3.0, 1.0, 2.0, 0.0],
        [2.0, 0.0, 0.0],
        [2.0, 1.0, -1.0],
        [math.nan, 0.0],
        [2.0, math.nan],
        [math.inf, 1.0, 0.0],
    ],
)
def test_unusable_sigmas_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(UnusableSchedule, match="the schedule"):
        BaseSchedule.from_sigmas(torch.tensor(sigmas))


def test_unknown_curves_are_refused() -> None:
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="cubic"):
        next_height("cubic", one, 1.0, 0.5, one)
    with pytest.raises(ValueError, match="cubic"):
        curve_height("cubic", one, 0.5)
    with pytest.raises(ValueError, match="cubic"):
        PixelClock((1, 1, 1, 1), 3, "cubic")


@pytest.mark.parametrize("curve", CURVES)
def test_a_single_step(curve: str) -> None:
    base = BaseSchedule.from_sigmas(torch.tensor([14.6, 0.0], dtype=torch.float64))
    assert (base.updates, base.steps) == (0, 1)
    assert levels_of(base, curve, [[0.0, 0.7, 1.0]]).tolist() == [[14.6] * 3, [0.0] * 3]
    base = BaseSchedule.from_sigmas(torch.tensor([14.6, 2.0], dtype=torch.float64))
    assert (base.updates, base.steps) == (1, 1)
    assert levels_of(base, curve, [[0.0, 0.7, 1.0]]).tolist() == [[14.6] * 3, [2.0] * 3]


def test_timesteps_are_whole_and_end_on_the_last_one() -> None:
    timesteps = torch.tensor([951, 701, 451, 201, 1])
    base = BaseSchedule.from_timesteps(timesteps)
    assert (base.steps, base.updates) == (4, 4)
    levels = levels_of(base, "quadratic", [[0.0, 0.7]] * 4)
    assert levels[:, 0].tolist() == timesteps.tolist()
    # f(i/4) at strength 0.7 is 1, 0.88125, 0.675, 0.38125, 0: 0.475, 1.3 and 2.475 nodes down, 250 timesteps each.
    assert levels[:, 1].tolist() == [951, 832, 626, 332, 1]
    assert bool((levels == levels.round()).all())


def test_half_timesteps_round_to_even() -> None:
    base = BaseSchedule.from_timesteps(torch.tensor([11, 1]))
    schedule = PixelSchedule(base, (1, 1, 1, 2), "linear")
    assert schedule._round(torch.tensor([2.5, 3.5], dtype=torch.float64)).tolist() == [2.0, 4.0]
    assert base.at_height(torch.tensor([0.25], dtype=torch.float64)).tolist() == [3.5]


def test_authors_ddim_leads_in_by_one_update() -> None:
    base = BaseSchedule.authors_ddim(50)
    assert (base.updates, base.steps, base.lead_in) == (50, 50, 1)
    schedule = PixelSchedule(base, (1, 1, 1, 2), "quadratic")
    assert schedule.exact_level.flatten().tolist() == [1001.0, 1001.0]
    schedule.lead_in(grow([0.0, 0.7]))
    # The first model call is one update after 1001: 981 on the line, 1001 - 20 + K*(50-1) with K = 0.28.
    assert schedule.level.flatten().tolist() == [981.0, 995.0]
    assert schedule.exact_level.flatten().tolist() == pytest.approx([981.0, 994.72], abs=1e-9)
    assert schedule.step == 0 and base.nominal(0) == 981.0
    levels = [schedule.advance(grow([0.0, 0.7])).flatten() for _ in range(50)]
    assert [float(level[0]) for level in levels] == [961.0 - 20 * i for i in range(49)] + [0.0]
    # All slow: tau + T*f(n/N); the last evaluation is at t=1 and the last step leads all pixels to 0.
    for n, level in enumerate(levels[:-1], start=2):
        exact = 1 + 1000 * float(curve_height("quadratic", torch.tensor(n / 50, dtype=torch.float64), 0.7))
        assert abs(float(level[1]) - exact) <= 0.5 + 1e-9
    assert levels[-2].tolist() == [1.0, 1.0]
    assert levels[-1].tolist() == [0.0, 0.0]
    assert [base.nominal(i) for i in (0, 1, 49, 50)] == [981.0, 961.0, 1.0, 0.0]
