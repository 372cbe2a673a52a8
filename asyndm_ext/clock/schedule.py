"""The host's schedule, and the per-pixel clock that walks down it (paper, section 4).

Heights, strengths and the global progress are those of :mod:`asyndm_ext.clock.curves`.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from asyndm_ext.clock.curves import CURVES, next_height
from asyndm_ext.clock.distinct import Numbers, elementwise, numbers, of_each, of_pairs

# Snapping distance, in schedule nodes: heights are float64 sums, and a pixel on the host's schedule has to
# get the host's sigma to the last bit.
_ON_NODE = 1e-6


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
        for step, (here, there) in enumerate(itertools.pairwise(s.tolist()), start=1):
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

    @cached_property
    def _axis(self) -> Tensor:
        """What pixels between two nodes are interpolated on."""
        return self.nodes.log() if self.log else self.nodes

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
        return elementwise(self.of_heights, v)

    def of_heights(self, v: Tensor) -> Tensor:
        """The same, one by one."""
        position = (1.0 - v) * self.updates
        near = position.round()
        on_node = (position - near).abs() < _ON_NODE
        low = position.floor().clamp(0, max(self.updates - 1, 0)).long()
        high = (low + 1).clamp(max=self.updates)
        nodes = self._axis
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
        if curve not in CURVES:
            raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")
        self.numbers = numbers(torch.ones(shape, dtype=torch.float64))
        """The heights, as the numbers that occur and where."""
        self.curve = curve
        self.shape = shape
        self._height: tuple[Numbers, Tensor] | None = None
        self.remaining = 1.0 if updates else 0.0
        """What remains of the global progress, fraction."""
        self._updates = updates
        self._done = 0

    @property
    def height(self) -> Tensor:
        """``(B,1,H,W)``, made when it is asked for."""
        if self._height is None or self._height[0] is not self.numbers:
            self._height = self.numbers, self.numbers.map()
        return self._height[1]

    def advance(self, strength: Tensor) -> Tensor:
        """One update with a strength map ``(B,1,H,W)`` in [0, 1]; returns the new heights ``(B,1,H,W)``."""
        self.move(strength)
        return self.height

    def move(self, strength: Tensor) -> Numbers:
        """The same, without the map."""
        # In the last update the share is all that remains, to the last bit, so every pixel ends at 0.
        self.numbers = self._moved(strength, 1 / self._updates)
        self._done += 1
        self.remaining = (self._updates - self._done) / self._updates
        return self.numbers

    def peek(self, strength: Tensor, remaining: float) -> Tensor:
        """The heights when so much of the global progress remains (fraction), without going there."""
        return self._moved(strength, self.remaining - remaining).map()

    def _moved(self, strength: Tensor, share: float) -> Numbers:
        """:func:`next_height` of every pixel, for each pair of a height and a strength once."""

        def work(heights: Tensor, strengths: Tensor) -> Tensor:
            return next_height(self.curve, heights, self.remaining, share, strengths)

        strength = strength.double().cpu()
        return of_pairs(
            work, self.numbers, numbers(strength if strength.shape == self.shape else strength.expand(self.shape))
        )

    def put(self, height: Tensor, remaining: float) -> None:
        """Go there: for solvers with a clock of their own, which make no counted updates."""
        self.numbers, self.remaining = numbers(height), remaining
        self._height = self.numbers, height


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
        self.level = self._at(self.clock.numbers)

    def _at(self, heights: Numbers) -> Tensor:
        """The level map."""
        return of_each(lambda v: self._round(self.base.of_heights(v)), heights).map()

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
        return torch.where(with_the_host, nominal, elementwise(self._round, self.base.at_height(height)))

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
            self.level = self._at(self.clock.move(strength))
        else:
            assert self.base.final is not None, "the schedule has ended"
            self.level = torch.full(self.clock.shape, self.base.final, dtype=torch.float64)
        return self.level
