"""Concave schedulers and the per-pixel clock (paper, section 4; Proposition 1).

A pixel's state is its *remaining height* ``v`` in [0, 1]: 1 at the start of sampling, 0 at the end. The
global progress is counted by what remains of it, ``r`` (1 at the start, 0 at the end). On the host's own
schedule every pixel has ``v == r``; a pixel that lags behind has ``v > r``.

A concave scheduler is a curve ``f(u)`` with ``f(0) = 1`` and ``f(1) = 0``. From any reachable state
exactly one shifted copy of ``f`` passes through ``(1 - r, v)`` and ``(1, 0)`` (Proposition 1), and the
height after a further share ``h`` of progress has the closed form that the functions below compute. They
never divide by the strength, so strength 0 is the straight line and not 0/0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.grid import distinct

CURVES = ("quadratic", "piecewise linear", "exponential", "head start", "linear")

_WAIT = 0.25
"""Part of the steps that "head start" waits at strength 1; it catches up from the middle on."""

# Snapping distance, in schedule nodes: heights are float64 sums, and a pixel on the host's schedule has to
# get the host's sigma to the last bit.
_ON_NODE = 1e-6


def _linear(v: Tensor, r: float, h: float) -> Tensor:
    return v * (1.0 - h / r)


def _quadratic(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return _linear(v, r, h) + w * h * (r - h)


def _piecewise_linear(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return torch.minimum(v - (1 - w) * h, (1 + w) * (r - h))


def _exponential(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return v - (1 - w) * h - (v - (1 - w) * r) * (math.expm1(h) / math.expm1(r))


def _head_start(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    # It waits, goes at the host's own stride, and catches up on the line that leads to (1, 0). The copy through (u, v)
    # is known by the lag that it has between its corners.
    most = torch.maximum(v - r, (v - (1 - w) * r - w * _WAIT) / 3).clamp_min(0.0)
    left = r - h
    return torch.minimum(torch.minimum(v - (1 - w) * h, left + most), (1 + 2 * _WAIT * w) * left)


_STEPS: dict[str, Callable[[Tensor, float, float, Tensor], Tensor]] = {
    "quadratic": _quadratic,
    "piecewise linear": _piecewise_linear,
    "exponential": _exponential,
    "head start": _head_start,
    "linear": lambda v, r, h, w: _linear(v, r, h),
}


def next_height(curve: str, v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    """Remaining height after one step (closed form of Proposition 1).

    Args:
        curve: one of :data:`CURVES`.
        v: remaining height per pixel, any shape, fraction in [0, 1].
        r: what remains of the global progress before the step, fraction in (0, 1].
        h: share of the global progress that the step takes, ``0 < h <= r``.
        w: strength per pixel in [0, 1], broadcastable to ``v``. A pixel of strength 0 takes the straight
           line to the end from where it is, whatever the curve, as in the authors' code.

    Returns:
        Tensor like ``v``; never above ``v``, never below 0, and exactly 0 when ``h == r``.

    Two strengths on the piecewise linear curve: a pixel that moves from a strong to a weak region may be
    above the weak region's curve, where no shifted copy exists. The authors' rule, kept here, cuts it
    down to that curve in a single step (up to 178 of 1000 timesteps from 0.7 to 0.4). "head start", which is not the
    authors' (tests/lag_rules.py chose it), does the same.

    Raises:
        ValueError: unknown curve.
    """
    if curve not in _STEPS:
        raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")
    if h >= r:
        return torch.zeros_like(v)
    concave = _STEPS[curve](v, r, h, w)
    new = torch.where(w == 0, _linear(v, r, h), concave)
    return torch.minimum(new, v).clamp_min(0.0)


def curve_height(curve: str, u: Tensor, w: float) -> Tensor:
    """The unshifted curve ``f(u)`` at strength ``w``: the height of a pixel that has been slow throughout.

    Args:
        u: global progress, fraction in [0, 1], any shape.
        w: strength in [0, 1].
    """
    straight = 1 - u
    if curve == "linear" or w == 0:
        return straight
    if curve == "quadratic":
        return (1 - w) * straight + w * (1 - u * u)
    if curve == "piecewise linear":
        return torch.minimum(1 - (1 - w) * u, (1 + w) * straight)
    if curve == "exponential":
        return (1 - w) * straight + w * (math.e - torch.exp(u)) / (math.e - 1)
    if curve == "head start":
        corners = torch.minimum(1 - (1 - w) * u, straight + w * _WAIT)
        return torch.minimum(corners, (1 + 2 * _WAIT * w) * straight)
    raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")


class UnusableSchedule(ValueError):
    """The host's schedule is not one that pixels can walk down."""


@dataclass(frozen=True)
class BaseSchedule:
    """The host's schedule, as the levels that a pixel passes on its way down.

    Attributes:
        nodes: ``(M+1,)`` float64 on the CPU, noisy to clean. The clock takes a pixel of height 1 to height
            0 along these in ``M`` updates.
        final: a level that all pixels step to together after the last node (sigma 0 cannot be reached on a
            logarithmic axis), or None.
        log: interpolate between nodes in the logarithm (sigmas) or linearly (timesteps).
        lead_in: clock updates made before the first model call.
        whole: round levels to whole numbers, half to even (timesteps that index a table).
        dtype: in which the host computes with its scalars.
    """

    nodes: Tensor
    final: float | None = None
    log: bool = True
    lead_in: int = 0
    whole: bool = False
    dtype: torch.dtype = torch.float64

    @classmethod
    def from_sigmas(cls, sigmas: Tensor) -> BaseSchedule:
        """Noise-level samplers: x starts at ``sigmas[0]``; a trailing sigma 0 is where all pixels end together.

        Repeated sigmas are steps of no length. A single sigma is a schedule of no steps, as some hosts make for one
        step; x stays what it is then.

        Raises:
            UnusableSchedule: no sigmas, a rising one, one that is not finite or negative, or a zero before the end.
        """
        given = torch.as_tensor(sigmas).detach()
        s = given.double().cpu().flatten()
        if len(s) == 0:
            raise UnusableSchedule("the schedule has no sigmas")
        if not bool(s.isfinite().all()) or bool((s < 0).any()):
            raise UnusableSchedule(f"the schedule has a sigma that is negative or not finite: {s.tolist()}")
        for step, (here, there) in enumerate(pairwise(s.tolist()), start=1):
            if there > here:
                raise UnusableSchedule(
                    f"the schedule rises from sigma {here:.4g} to {there:.4g} in step {step}, and a pixel's noise can "
                    f"only fall: this schedule type does not suit the model or its settings; choose another one"
                )
            if here == 0:
                raise UnusableSchedule(
                    f"the schedule is at sigma 0 before its last step (step {step}), where the sampler divides by it: "
                    f"this schedule type does not suit the model; choose another one"
                )
        dtype = torch.promote_types(given.dtype, torch.float32)
        if len(s) > 1 and s[-1] == 0:
            return cls(nodes=s[:-1], final=0.0, dtype=dtype)
        return cls(nodes=s, dtype=dtype)

    @classmethod
    def from_timesteps(cls, timesteps: Tensor) -> BaseSchedule:
        """Timestep samplers: ``timesteps`` from noisy to clean, the last one is where sampling ends."""
        return cls(nodes=torch.as_tensor(timesteps).detach().double().cpu().flatten(), log=False, whole=True)

    @classmethod
    def authors_ddim(cls, steps: int, train_timesteps: int = 1000, offset: int = 1) -> BaseSchedule:
        """The authors' DDIM: the curve starts one update *before* the first model call and ends at ``offset``."""
        nodes = torch.linspace(train_timesteps + offset, offset, steps + 1, dtype=torch.float64)
        return cls(nodes=nodes, final=0.0, log=False, lead_in=1, whole=True)

    @property
    def updates(self) -> int:
        """Clock updates from height 1 to height 0."""
        return len(self.nodes) - 1

    @property
    def steps(self) -> int:
        """Solver steps: transitions from one level to the next."""
        return self.updates - self.lead_in + (self.final is not None)

    @property
    def lags(self) -> bool:
        """Whether a pixel can lag behind at all: with one update, all of them start and end together."""
        return self.updates > 1

    def nominal(self, step: int) -> float:
        """The level that the host itself is at in this solver step."""
        node = step + self.lead_in
        if node < len(self.nodes):
            return float(self.nodes[node])
        assert self.final is not None
        return self.final

    def at_height(self, v: Tensor) -> Tensor:
        """Levels for remaining heights ``v`` (any shape, fraction): interpolated between the nodes."""
        heights, where = distinct(v)
        return self._at_height(heights)[where]

    def _at_height(self, v: Tensor) -> Tensor:
        position = (1.0 - v) * self.updates
        near = position.round()
        on_node = (position - near).abs() < _ON_NODE
        low = position.floor().clamp(0, max(self.updates - 1, 0)).long()
        high = (low + 1).clamp(max=self.updates)
        nodes = self.nodes.log() if self.log else self.nodes
        between = torch.lerp(nodes[low], nodes[high], position - low)
        if self.log:
            between = between.exp()
        return torch.where(on_node, self.nodes[near.long()], between)

    def remaining_at(self, nominal: float) -> float:
        """What remains of the global progress when the host itself is at this level; 0 beyond the last node."""
        passed = int((self.nodes > nominal).sum())
        if passed > self.updates:
            return 0.0
        position = float(passed)
        if passed > 0 and self.nodes[passed] < nominal:
            near = torch.stack([self.nodes[passed - 1], self.nodes.new_tensor(nominal), self.nodes[passed]])
            above, here, below = (near.log() if self.log else near).tolist()
            position = passed - 1 + (above - here) / (above - below)
        return (self.updates - position) / self.updates if self.updates else 0.0


class PixelClock:
    """Every pixel's remaining height, moved on together (float64, on the CPU).

    A map is a few thousand numbers, so the clock costs microseconds there; it keeps float64 where the
    accelerator has none, and the solver receives finished level maps.
    """

    def __init__(self, shape: tuple[int, int, int, int], updates: int, curve: str) -> None:
        if curve not in _STEPS:
            raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")
        self.height = torch.ones(shape, dtype=torch.float64)
        self.curve = curve
        self.remaining = 1.0 if updates else 0.0
        """What remains of the global progress, fraction."""
        self._updates = updates
        self._done = 0

    def advance(self, strength: Tensor) -> Tensor:
        """One update with a strength map ``(B,1,H,W)`` in [0, 1]; returns the new heights ``(B,1,H,W)``."""
        # In the last update the share is all that remains, to the last bit, so every pixel ends at 0.
        share = 1 / self._updates
        self.height = next_height(self.curve, self.height, self.remaining, share, strength.double().cpu())
        self._done += 1
        self.remaining = (self._updates - self._done) / self._updates
        return self.height

    def peek(self, strength: Tensor, remaining: float) -> Tensor:
        """The heights when so much of the global progress remains (fraction), without going there."""
        return next_height(self.curve, self.height, self.remaining, self.remaining - remaining, strength.double().cpu())

    def put(self, height: Tensor, remaining: float) -> None:
        """Go there: for solvers with a clock of their own, which make no counted updates."""
        self.height, self.remaining = height, remaining


@dataclass(frozen=True)
class Position:
    """Where the clock could be: the host's own level there, and each pixel's.

    Attributes:
        nominal: the host's level.
        remaining: of the global progress, fraction.
        height, level: per pixel ``(B,1,H,W)``.
        strength: the map that led there.
    """

    nominal: float
    remaining: float
    height: Tensor
    level: Tensor
    strength: Tensor


class PixelSchedule:
    """The levels a solver walks through, pixel by pixel: a base schedule seen through a clock.

    Most solvers go from node to node with :meth:`advance`. One that chooses the host's levels itself looks ahead
    with :meth:`peek` and goes there with :meth:`take`; it can go back up with :meth:`restart`.

    Attributes:
        base: the host's schedule.
        level: the current level map ``(B,1,H,W)``, float64 on the CPU (sigma or timestep).
        nominal: the host's own level now.
        step: the solver step that the current level belongs to.
    """

    def __init__(self, base: BaseSchedule, shape: tuple[int, int, int, int], curve: str) -> None:
        self.base = base
        self.clock = PixelClock(shape, base.updates, curve)
        self.step = 0
        self.nominal = base.nominal(0)
        self._updates_done = 0
        self._passed = [(self.clock.remaining, self.clock.height)]
        self.level = self._round(base.at_height(self.clock.height))

    def _round(self, level: Tensor) -> Tensor:
        # Half to even, as torch.round in the authors' code.
        return level.round() if self.base.whole else level

    def lead_in(self, strength: Tensor) -> None:
        """The clock updates that come before the first model call; nothing for most schedules."""
        for _ in range(self.base.lead_in):
            self._tick(strength)

    def advance(self, strength: Tensor) -> Tensor:
        """End the current solver step; returns the level map ``(B,1,H,W)`` that it leads to."""
        self.step += 1
        self.nominal = self.base.nominal(self.step)
        return self._tick(strength)

    def peek(self, strength: Tensor, nominal: float) -> Position:
        """Where every pixel is when the host is at a lower level of the solver's choice, without going there."""
        remaining = self.base.remaining_at(nominal)
        height = self.clock.peek(strength, remaining)
        return Position(nominal, remaining, height, self._level_at(height, remaining, nominal), strength)

    def take(self, position: Position) -> Tensor:
        """End the current solver step at what :meth:`peek` has shown; returns the level map."""
        self.step += 1
        self._passed.append((position.remaining, position.height))
        return self._go(position)

    def restart(self, strength: Tensor, nominal: float) -> Tensor:
        """Go on from where the host is at ``nominal``, usually a higher level; returns the level map.

        Each pixel is as high as it was when the host came past there, in between straight: the higher the host,
        the higher the pixel, so that noise can take it there. (A lower level is reached as by a step.)
        """
        remaining = self.base.remaining_at(nominal)
        if remaining < self.clock.remaining:
            self._go(self.peek(strength, nominal))
            return self.level
        below = self._passed[-1]
        while self._passed[-1][0] < remaining:
            below = self._passed.pop()
        above = self._passed[-1]
        share = (remaining - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 1.0
        height = torch.lerp(below[1], above[1], share)
        self._passed.append((remaining, height))
        return self._go(Position(nominal, remaining, height, self._level_at(height, remaining, nominal), strength))

    def _go(self, position: Position) -> Tensor:
        self.clock.put(position.height, position.remaining)
        self.nominal, self.level = position.nominal, position.level
        return self.level

    def _level_at(self, height: Tensor, remaining: float, nominal: float) -> Tensor:
        # A pixel on the host's schedule gets the host's level to the last bit. That is all of them beyond the last
        # node, where the heights are 0.
        with_the_host = (height - remaining).abs() * self.base.updates < _ON_NODE
        return torch.where(with_the_host, nominal, self._round(self.base.at_height(height)))

    @property
    def exact_level(self) -> Tensor:
        """The current level before rounding, ``(B,1,H,W)``."""
        if self._updates_done > self.base.updates:
            return self.level
        return self.base.at_height(self.clock.height)

    def ahead(self, strength: Tensor) -> Tensor:
        """Where :meth:`advance` would lead, ``(B,1,H,W)``, without going there."""
        return copy.deepcopy(self).advance(strength)

    def _tick(self, strength: Tensor) -> Tensor:
        self._updates_done += 1
        if self._updates_done <= self.base.updates:
            self.level = self._round(self.base.at_height(self.clock.advance(strength)))
        else:
            assert self.base.final is not None, "the schedule has ended"
            self.level = torch.full_like(self.clock.height, self.base.final)
        return self.level
