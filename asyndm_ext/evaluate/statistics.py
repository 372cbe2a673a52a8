"""Paired differences with confidence intervals: each method against plain, same prompt, same noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST = 20
"""Pairs, or groups of them, below which nothing is said but the means: intervals of so few hold less than they say."""


@dataclass(frozen=True)
class Difference:
    """A method's mean against plain's over the pairs that both have.

    Attributes:
        pairs: how many.
        plain, mean: of the scores.
        difference: ``mean - plain``. low, high: its confidence interval; NaN: fewer than :data:`FEWEST` pairs.
        better, worse: in how many pairs the method's score is above and below plain's.
        p: of a sign test on those, two-sided and exact (for 0 and 1 McNemar's): how probable a split at least as uneven
            would be if the method made no difference; NaN: too few pairs.
    """

    pairs: int
    plain: float
    mean: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float

    @property
    def clear(self) -> bool:
        """Whether interval and test agree that there is a difference, and in which direction."""
        return self.p < 1 - LEVEL and (
            (self.low > 0 and self.better > self.worse) or (self.high < 0 and self.worse > self.better)
        )

    @property
    def known(self) -> bool:
        """Whether there are enough pairs to say more than the means."""
        return not math.isnan(self.low)


class Bootstrap:
    """Resamples pairs with replacement, the same draws for all methods and columns.

    Args:
        groups: of each pair; pairs of a group are drawn together. Every pair a group of its own: intervals for
            these kinds of prompts; pairs grouped by prompt: the same where prompts have several seeds, whose results
            are alike.
        resamples: how many.
        seed: of the draws.
    """

    def __init__(self, groups: Sequence[int] | int, resamples: int = 10_000, seed: int = 0) -> None:
        numbers = (
            np.arange(groups) if isinstance(groups, int) else np.unique(np.asarray(groups), return_inverse=True)[1]
        )
        count = int(numbers.max()) + 1 if len(numbers) else 0
        rng = np.random.default_rng(seed)
        self._groups, self._count = numbers, count
        self._weights = (
            rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float32)
            if count
            else np.zeros((resamples, 0), dtype=np.float32)
        )

    def interval(self, values: Floats, level: float = LEVEL) -> tuple[float, float]:
        """Percentile interval of the mean of ``values`` ``(pairs,)``; NaN: this pair has none.

        NaN, NaN where fewer than :data:`FEWEST` groups have values.
        """
        there = ~np.isnan(values)
        if len(np.unique(self._groups[there])) < FEWEST:
            return math.nan, math.nan
        sums = np.bincount(self._groups, np.where(there, values, 0.0), self._count)
        sizes = np.bincount(self._groups, there.astype(np.float64), self._count)
        drawn = self._weights @ np.stack([sums, sizes], axis=1).astype(np.float32)
        drawn = drawn[drawn[:, 1] > 0].astype(np.float64)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def compare(self, plain: Floats, method: Floats) -> Difference:
        """Scores ``(pairs,)`` of the same pairs in the same order; a pair with NaN on either side is left out."""
        differences = method - plain
        there = ~np.isnan(differences)
        better, worse = int((differences[there] > 0).sum()), int((differences[there] < 0).sum())
        if not there.any():
            return Difference(0, math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, math.nan)
        low, high = self.interval(differences)
        return Difference(
            pairs=int(there.sum()),
            plain=float(plain[there].mean()),
            mean=float(method[there].mean()),
            difference=float(differences[there].mean()),
            low=low,
            high=high,
            better=better,
            worse=worse,
            p=math.nan if math.isnan(low) else sign_test(better, worse),
        )


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact binomial test of an even split."""
    total, most = better + worse, max(better, worse)
    if total == 0:
        return 1.0
    log_half = -total * math.log(2)
    tail = sum(
        math.exp(math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + log_half)
        for k in range(most, total + 1)
    )
    return min(1.0, 2 * tail)
