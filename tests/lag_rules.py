"""Where should the lag fall? Curves, log-sigma, windows by noise level and two handles, in the exact world.

    python -m tests.lag_rules                        # the development of docs/EVALUATE.md, which chose the rule
    python -m tests.lag_rules --confirm RULE ...     # the confirmation, on other pairs

Prints per rule how many points more of the pictures are right than on the ordinary clock, from the same noise: over all
cells, over those of each number of channels, and over those of each schedule.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.clock.curves import next_height
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelClock, PixelSchedule
from asyndm_ext.evaluate.statistics import Bootstrap
from asyndm_ext.exact.config import ExactConfig, combinations
from asyndm_ext.exact.model import ExactModel
from asyndm_ext.exact.sampling import Conditions, sample
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.region.regions import Region
from asyndm_ext.settings import Settings

CHOOSE, CONFIRM = (25, 8_000_000), (75, 9_000_000)
"""How many pictures of each of the 40 unusual prompts, and the seed of the first."""
DIMENSIONS = (16, 64, 256, 1024)
SCHEDULES = ("uniform", "karras", "SGM uniform", "beta", "DDIM")
TODAY = ("quadratic", "piecewise linear", "exponential")
Cell = tuple[int, str]
CELLS: list[Cell] = [(dimension, schedule) for dimension in DIMENSIONS for schedule in SCHEDULES]


class SpanOfKinds(ExactWorld):
    """The world in the directions that its kinds span: all others hold noise alone, of which nothing depends. What is
    right in it has the chances that it has in the whole one, and 1024 channels take no longer than 16."""

    def __init__(self, config: ExactConfig) -> None:
        super().__init__(config)
        self.kinds = [torch.linalg.qr(kinds.T)[1].T for kinds in self.kinds]
        most = max(kinds.shape[1] for kinds in self.kinds)
        self.kinds = [torch.nn.functional.pad(kinds, (0, most - kinds.shape[1])) for kinds in self.kinds]
        self.config = replace(config, dimension=most)


class Axis:
    """A host's schedule as a rule sees it: which part of the way down in log-sigma remains, and the sigma there."""

    def __init__(self, base: BaseSchedule, table: NoiseTable) -> None:
        nodes = base.nodes if base.log else NoiseTable.half_log_snr(table, base.nodes).neg().exp()
        logs = nodes.log()
        self.first, self.last = float(logs[0]), float(logs[-1])
        self._shares = ((logs - self.last) / (self.first - self.last)).numpy()[::-1]  # rising
        self._heights = np.linspace(0, 1, len(nodes))

    def share(self, v: Tensor | float) -> Tensor:
        """Of heights in steps, the parts of log-sigma that remain."""
        return torch.as_tensor(np.interp(np.asarray(v), self._heights, self._shares))

    def height(self, share: Tensor) -> Tensor:
        """The other way round."""
        return torch.as_tensor(np.interp(share.numpy(), self._shares, self._heights))

    def sigma(self, v: float) -> float:
        return math.exp(self.last + float(self.share(v)) * (self.first - self.last))


Rule = Callable[[Tensor, float, float, Tensor, Axis], Tensor]
"""Next heights of heights, what remains, the share of the step, strengths and the axis: as ``next_height``."""


def by_steps(curve: str) -> Rule:
    return lambda v, r, h, w, axis: next_height(curve, v, r, h, w)


def by_log_sigma(curve: str) -> Rule:
    """The curve with parts of log-sigma in place of parts of the steps."""

    def rule(v: Tensor, r: float, h: float, w: Tensor, axis: Axis) -> Tensor:
        here, there = float(axis.share(r)), float(axis.share(r - h))
        return axis.height(next_height(curve, axis.share(v), here, here - there, w))

    return rule


def until_sigma(curve: str, sigma: float) -> Rule:
    """The curve as long as the host is above a sigma, then straight to the end. "wait": no noise is taken away."""

    def rule(v: Tensor, r: float, h: float, w: Tensor, axis: Axis) -> Tensor:
        if axis.sigma(r) <= sigma:
            w = torch.zeros_like(w)
        if curve == "wait":
            return torch.minimum(v - (1 - w) * h, v * (r - h) / r) if not bool(w.any()) else v - (1 - w) * h
        return next_height(curve, v, r, h, w)

    return rule


def handles(wait: float, catch_up: float) -> Rule:
    """Waits for a part of the steps, then goes at the host's own stride, and from another part on catches up.

    A pixel below the last line is on exactly one shifted copy: its later corner is moved along that line.
    """

    def rule(v: Tensor, r: float, h: float, w: Tensor, axis: Axis) -> Tensor:
        u = 1 - r
        slow, fast = 1 - w, 1 + w * wait / (1 - catch_up)
        middle = catch_up - wait
        # Where the later corner is, if the pixel is between the corners, and if it is before them.
        between = (fast - u - v) / (fast - 1).clamp_min(1e-12)
        before = (fast + middle - slow * (middle + u) - v) / (fast - slow).clamp_min(1e-12)
        corner = torch.where(u >= between - middle, between, before)
        to = u + h
        on_slow = fast * (1 - corner) + middle + slow * (corner - middle - to)
        on_middle = fast * (1 - corner) + corner - to
        on_fast = fast * torch.full_like(v, 1 - to)
        new = torch.minimum(torch.minimum(on_slow, on_middle), on_fast)
        return torch.where(w == 0, v * (r - h) / r, torch.minimum(new, v))

    return rule


RULES: dict[str, Rule] = {
    **{curve: by_steps(curve) for curve in TODAY},
    **{f"{curve} by log-sigma": by_log_sigma(curve) for curve in TODAY[:2]},
    **{f"wait until sigma {sigma:g}": until_sigma("wait", sigma) for sigma in (8, 4, 2, 1)},
    **{f"quadratic until sigma {sigma:g}": until_sigma("quadratic", sigma) for sigma in (4, 1)},
    **{
        f"handles {wait:g} and {catch_up:g}": handles(wait, catch_up)
        for wait in (0.125, 0.25, 0.5)
        for catch_up in sorted({wait, 0.5, 0.7, 0.85})
        if (wait, catch_up) != (0.5, 0.5)  # that is piecewise linear
    },
}


class RuledClock(PixelClock):
    """A clock whose heights follow a rule."""

    def __init__(self, shape: tuple[int, int, int, int], updates: int, rule: Rule, axis: Axis) -> None:
        super().__init__(shape, updates, "linear")
        self._rule, self._axis = rule, axis

    def advance(self, strength: Tensor) -> Tensor:
        share, at, was = 1 / self._updates, self.remaining, self.height
        super().advance(strength)
        if at > share * 1.5:
            self.height = self._rule(was, at, share, strength.double(), self._axis).clamp(0, 1)
        return self.height


def scheduled(rule: Rule, base: BaseSchedule, shape: tuple[int, int, int, int], curve: str) -> PixelSchedule:
    """Levels along a rule in place of a curve."""
    schedule = PixelSchedule(base, shape, "linear")
    schedule.clock = RuledClock(shape, base.updates, rule, Axis(base, _table()))
    return schedule


@cache
def _table() -> NoiseTable:
    return NoiseTable.from_alphas_cumprod(ExactWorld(ExactConfig()).alphas_cumprod)


def conditions(schedule: str, guidance: float = 5.0, steps: int = 30) -> Conditions:
    if schedule == "DDIM":
        return Conditions("DDIM", steps=steps, guidance=guidance, eta=1.0)
    return Conditions("Euler", schedule, steps=steps, guidance=guidance)


def right(
    cell: Cell,
    pairs: tuple[int, int],
    rule: Rule | None = None,
    region: Callable[[tuple[int, int, int, int]], Region] | None = None,
    parts: int = 2,
    made: Callable[..., ExactModel] = ExactModel,
    world_of: Callable[[ExactConfig], ExactWorld] = SpanOfKinds,
) -> np.ndarray:
    """Which pictures are, 0 or 1; without a rule and a region on the ordinary clock."""
    config = ExactConfig(dimension=cell[0]) if parts == 2 else ExactConfig(3, 0.7, 3.0, cell[0])
    world, (rounds, first) = world_of(config), pairs
    asked = combinations(config.parts, False) * rounds
    settings = None if rule is None else Settings(enabled=True, strength=1.0)
    found = []
    for start in range(0, len(asked), 1000):
        part = asked[start : start + 1000]
        more = {} if rule is None else {"scheduled": partial(scheduled, rule)}
        if region is not None:
            more["region"] = region((len(part), 1, 1, config.parts))
        seeds = range(first + start, first + start + len(part))
        found.append(world.found(sample(world, part, seeds, conditions(cell[1]), settings, made=made, **more)))
    kinds = torch.tensor([one.kinds for one in asked])
    return (torch.cat(found) == kinds).all(dim=1).double().numpy()


def largest_lag(rule: Rule, schedule: str) -> float:
    """In parts of the steps, of a pixel of strength 1."""
    from asyndm_ext.embedded.batch import webui_arguments
    from asyndm_ext.solvers import SOLVERS

    host = conditions(schedule)
    base = SOLVERS[host.solver].schedule({**webui_arguments(host, _table()), "eta": None})
    schedule_of = scheduled(rule, base, (1, 1, 1, 1), "")
    lags, one = [0.0], torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for _ in range(base.updates):
        lags.append(float(schedule_of.clock.advance(one)) - schedule_of.clock.remaining)
    return max(lags)


Found = Mapping[Cell, np.ndarray]


def told(name: str, bootstrap: Bootstrap, own: Found, base: Found) -> str:
    """A rule's row: from the base over all cells, then by channels and by schedules (means)."""
    difference = {cell: own[cell] - base[cell] for cell in CELLS}
    low, high = bootstrap.interval(np.mean(list(difference.values()), axis=0))

    def mean(of: Sequence[Cell]) -> str:
        return f"{100 * np.mean([difference[cell] for cell in of]):+5.1f}"

    every = f"{mean(CELLS)} ({100 * low:+5.1f} to {100 * high:+5.1f})"
    channels = " ".join(mean([cell for cell in CELLS if cell[0] == one]) for one in DIMENSIONS)
    schedules = " ".join(mean([cell for cell in CELLS if cell[1] == one]) for one in SCHEDULES)
    bad = [cell for cell in CELLS if bootstrap.interval(difference[cell])[1] < 0]
    return f"  {name:<34} {every} | {channels} | {schedules} | worse in {len(bad)}: {bad}"


def table(rules: Sequence[str], pairs: tuple[int, int], details: bool = False) -> None:
    plain = {cell: right(cell, pairs) for cell in CELLS}
    bootstrap = Bootstrap(len(plain[CELLS[0]]))
    shares = ", ".join(f"{d} {s}: {100 * plain[d, s].mean():.1f}" for d, s in CELLS)
    print(f"{len(plain[CELLS[0]])} pairs in each of {len(CELLS)} cells; plain, % right: {shares}")
    print("all cells | channels", *DIMENSIONS, "| schedules", *SCHEDULES, flush=True)
    found: dict[str, Found] = {}
    for name in rules:
        found[name] = {cell: right(cell, pairs, RULES[name]) for cell in CELLS}
        lags = ", ".join(f"{largest_lag(RULES[name], one):.2f}" for one in SCHEDULES)
        print(told(name, bootstrap, found[name], plain), f"| largest lags {lags}", flush=True)
    if not details:
        return
    for name in rules:
        for base in TODAY[:2]:
            if base != name:
                print(told(f"{name} from {base}", bootstrap, found[name], found[base]))
        for cell in CELLS:
            own = found[name][cell] - plain[cell]
            low, high = bootstrap.interval(own)
            print(f"    {name} {cell}: {100 * own.mean():+5.1f} ({100 * low:+5.1f} to {100 * high:+5.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", nargs="+", choices=list(RULES), metavar="RULE")
    chosen = parser.parse_args().confirm
    with torch.inference_mode():
        if chosen:
            table([*TODAY[:2], *(rule for rule in chosen if rule not in TODAY[:2])], CONFIRM, details=True)
        else:
            table(list(RULES), CHOOSE)


if __name__ == "__main__":
    main()
