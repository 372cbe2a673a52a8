"""Maps of few numbers: a level map has thousands of pixels and a few hundred different levels.

What is worked out elementwise is worked out once for each number that occurs. Which numbers these are is sorted out
once, and kept beside the map and all maps that are made of it: of the strengths and the heights of the clock, the next
heights, of these the levels, of the levels the timesteps. A map that has been changed in place is sorted out anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Map to its version in torch's count, its numbers and which of them each pixel has."""


def distinct(x: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct numbers of a map of any shape, rising, and which of them each is, int32 in the map's shape.

    As :func:`torch.unique`, which sorts all of them; neighbours mostly are the same, so few are sorted here.
    """
    known = _known.get(x)
    if known is not None and known[0] == _version(x):
        return known[1], known[2]
    runs, run = torch.unique_consecutive(x.flatten(), return_inverse=True)
    values, value = torch.unique(runs, return_inverse=True)
    where = value.int().index_select(0, run).view(x.shape)
    _known[x] = _version(x), values, where
    return values, where


def spread(values: Tensor, where: Tensor) -> Tensor:
    """The map ``where``'s shape of these numbers ``(R,)``, which may repeat and stand in any order."""
    if not bool((values[1:] > values[:-1]).all()):
        values, place = torch.unique(values, return_inverse=True)
        where = place.int().index_select(0, where.flatten()).view(where.shape)
    made = values.index_select(0, where.flatten()).view(where.shape)
    _known[made] = _version(made), values, where
    return made


def _version(x: Tensor) -> int:
    """Rises with every change in place; torch does not count those of inference mode, where nobody here makes any."""
    return 0 if x.is_inference() else x._version


def elementwise(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``work`` of a map of any shape, done for every distinct number once; the map itself where it changes none."""
    values, where = distinct(x)
    made = work(values)
    return x if torch.equal(made, values) else spread(made, where)


def pairwise(work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """``work`` of two maps of the same shape, done once for every pair of numbers that occurs somewhere."""
    (xs, x_at), (ys, y_at) = distinct(x), distinct(y)
    if len(xs) * len(ys) > x.numel():  # most pairs would occur nowhere
        return work(x, y)
    pair, used = occurring(x_at * len(ys) + y_at, len(xs) * len(ys))
    return spread(work(xs[used // len(ys)], ys[used % len(ys)]), pair)


def occurring(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """An index of any shape into ``count`` things, counted among those that occur only; and which these are, rising."""
    flat = index.flatten()
    there = torch.bincount(flat, minlength=count) > 0
    rank = there.cumsum(0, dtype=torch.int32) - 1
    return rank.index_select(0, flat).view(index.shape), there.nonzero().flatten()
