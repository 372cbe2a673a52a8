"""A clock that adapts: do parts whose prediction still moves gain by lagging? Candidates in the exact world.

    python -m tests.adaptive_rules                           # the development of docs/EVALUATE.md
    python -m tests.adaptive_rules --confirm ADAPTIVE FIXED  # the confirmation, on other pairs, against a fixed rule

Prints what :mod:`tests.lag_rules` does, for rules that look at what the model answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.evaluate.statistics import Bootstrap
from asyndm_ext.exact.model import ExactModel
from tests.lag_rules import CELLS, DIMENSIONS, RULES, SCHEDULES, TODAY, Found, Rule, by_steps, right, told

CHOOSE, CONFIRM, THREE = (25, 10_000_000), (75, 11_000_000), (20, 12_000_000)
LATEST = 0.5
"""Of the steps: the longest that anything waits, as on the piecewise linear curve."""

Shape = tuple[int, int, int, int]


class Watched(ExactModel):
    """Keeps what it answers: the clean picture that it expects, and what the prompt does to it."""

    expected: Tensor | None = None
    spread: Tensor | None = None

    def denoised(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        uncond, cond = super().denoised(x, sigma)
        self.spread = cond - uncond
        self.expected = uncond + self._guidance * self.spread
        return uncond, cond


class Adaptive:
    """The strength of every part from the answers so far.

    Args:
        kind: which parts lag: "moves" and "prompt" the more than average ones, "rest" the objects while the rest
            changes, "own" the objects while they change themselves.
        share: of itself that a settled prediction changes by in a step.
    """

    def __init__(self, kind: str, share: float, shape: Shape) -> None:
        self._kind, self._share, self._shape = kind, share, shape
        self.model: Watched | None = None
        self._before: Tensor | None = None
        self._now = torch.ones(shape, dtype=torch.float64)
        if kind in ("rest", "own"):
            self._now[..., 0] = 0  # the ground never lags
        else:
            self._now[:] = 0
        self._waits = self._now.bool()

    def observe(self, maps: Tensor | None, progress: float) -> None:
        assert self.model is not None and self.model.expected is not None and self.model.spread is not None
        expected = self.model.expected.double()
        change = None if self._before is None else _size(expected - self._before)
        self._before = expected
        if self._kind == "prompt":
            change = _size(self.model.spread.double())
        if change is None:
            return
        if self._kind in ("moves", "prompt"):
            self._now = (change >= change.mean(-1, keepdim=True)).double()
            return
        moves = change >= self._share * _size(expected)
        if self._kind == "rest":
            moves = moves[..., :1].expand_as(moves)
        self._waits = self._waits & moves
        self._now = self._waits.double()

    def strength(self, progress: float) -> Tensor:
        if self._kind in ("rest", "own") and progress >= LATEST - 1e-9:
            return torch.zeros_like(self._now)
        return self._now


def _size(of: Tensor) -> Tensor:
    """``(B,D,1,P)`` to ``(B,1,1,P)``."""
    return of.square().mean(1, keepdim=True).sqrt()


def _wait(v: Tensor, r: float, h: float, w: Tensor, axis: object) -> Tensor:
    """What is slow stands still, what is not goes straight to the end."""
    return torch.where(w == 0, v * (r - h) / r, v - (1 - w) * h)


ADAPTIVE: dict[str, tuple[str, float, Rule]] = {
    **{f"what moves, {curve}": ("moves", 0.0, by_steps(curve)) for curve in TODAY[:2]},
    **{f"what the prompt acts on, {curve}": ("prompt", 0.0, by_steps(curve)) for curve in TODAY[:2]},
    **{f"objects, while the rest moves by {share:g}": ("rest", share, _wait) for share in (0.5, 0.3, 0.2, 0.1)},
    **{f"objects, while they move by {share:g}": ("own", share, _wait) for share in (0.3, 0.1)},
}


def adapted(name: str, cell: tuple[int, str], pairs: tuple[int, int], parts: int = 2) -> np.ndarray:
    kind, share, rule = ADAPTIVE[name]
    regions: list[Adaptive] = []

    def region(shape: Shape) -> Adaptive:
        regions.append(Adaptive(kind, share, shape))
        return regions[-1]

    def made(*given: object) -> Watched:
        regions[-1].model = Watched(*given)
        return regions[-1].model

    return right(cell, pairs, rule, region, parts, made)


def table(names: Sequence[str], fixed: Sequence[str], pairs: tuple[int, int]) -> None:
    plain = {cell: right(cell, pairs) for cell in CELLS}
    bootstrap = Bootstrap(len(plain[CELLS[0]]))
    print(f"{len(plain[CELLS[0]])} pairs in each of {len(CELLS)} cells")
    print("all cells | channels", *DIMENSIONS, "| schedules", *SCHEDULES, flush=True)
    found: dict[str, Found] = {}
    makers: list[tuple[str, Callable[[tuple[int, str]], np.ndarray]]] = [
        *((name, lambda cell, name=name: right(cell, pairs, RULES[name])) for name in fixed),
        *((name, lambda cell, name=name: adapted(name, cell, pairs)) for name in names),
    ]
    for name, make in makers:
        found[name] = {cell: make(cell) for cell in CELLS}
        print(told(name, bootstrap, found[name], plain), flush=True)
    for name in names:
        for base in fixed:
            print(told(f"{name} from {base}", bootstrap, found[name], found[base]), flush=True)


def three(name: str, fixed: str) -> None:
    """Three parts: the rule and the fixed one from plain."""
    for cell in ((16, "DDIM"), (256, "DDIM")):
        plain = right(cell, THREE, parts=3)
        bootstrap = Bootstrap(len(plain))
        for one, own in (
            (name, adapted(name, cell, THREE, parts=3)),
            (fixed, right(cell, THREE, RULES[fixed], parts=3)),
        ):
            low, high = bootstrap.interval(own - plain)
            print(
                f"  three parts {cell}, {len(plain)} pairs, plain {100 * plain.mean():.1f}: {one} "
                f"{100 * (own - plain).mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", nargs=2, metavar=("ADAPTIVE", "FIXED"))
    chosen = parser.parse_args().confirm
    with torch.inference_mode():
        if chosen:
            table([chosen[0]], [chosen[1]], CONFIRM)
            three(*chosen)
        else:
            table(list(ADAPTIVE), TODAY[:2], CHOOSE)


if __name__ == "__main__":
    main()
