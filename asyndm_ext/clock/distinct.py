"""Maps of few numbers: a level map has thousands of pixels and a few hundred different levels.

What is worked out elementwise is worked out once for each number that occurs. Which numbers these are is sorted out
once, and kept beside the map and all maps that are made of it: of the strengths and the heights of the clock, the next
heights, of these the levels, of the levels the timesteps. A map that has been changed in place is sorted out anew.

A mask from attention is one of cells of several pixels, and so are all maps that follow from it: there the cells are
kept, not the pixels. Which numbers occur is counted by numpy, whose operators cost less to call than torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_FEW = 8  # numbers that are compared with one by one
Block = tuple[int, int]
"""How many rows and columns of pixels a cell has."""
PIXEL: Block = (1, 1)


class Numbers(NamedTuple):
    """What a map ``(...,H,W)`` is made of.

    Attributes:
        values: its distinct numbers, rising, ``(R,)``.
        where: which of them each cell has, int32 ``(...,h,w)``; the map's own shape where cells are pixels.
        block: the pixels of a cell; ``(H,W)`` is exactly so many times ``(h,w)``.
    """

    values: Tensor
    where: Tensor
    block: Block = PIXEL

    @property
    def pixels(self) -> Tensor:
        """``where`` of each pixel."""
        return repeated(self.where, self.block)

    def map(self) -> Tensor:
        """The map; its numbers are known from then on."""
        made = repeated(self.values.index_select(0, self.where.flatten()).view(self.where.shape), self.block)
        _known[made] = _version(made), self
        return made


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Map to its version in torch's count, and its :class:`Numbers`."""


def repeated(cells: Tensor, block: Block) -> Tensor:
    """Every cell of ``(...,h,w)`` as often as it has pixels."""
    if block == PIXEL:
        return cells
    return cells.repeat_interleave(block[1], -1).repeat_interleave(block[0], -2)  # whole rows are copied fast


def numbers(x: Tensor) -> Numbers:
    """The numbers of a map of any shape.

    As :func:`torch.unique`, which sorts all of them; neighbours mostly are the same, so few are sorted here.
    """
    known = _known.get(x)
    if known is not None and known[0] == _version(x):
        return known[1]
    runs, run = torch.unique_consecutive(x.flatten(), return_inverse=True)
    values, value = torch.unique(runs, return_inverse=True)
    found = Numbers(values, value.int().index_select(0, run).view(x.shape))
    _known[x] = _version(x), found
    return found


def numbers_of_few(x: Tensor, known: Iterable[float]) -> Numbers | None:
    """The same of a map that consists of a few known numbers and no others; None where it does not."""
    own, told = np.unique([*known]), x.numpy()
    if len(own) > _FEW:
        return None
    place = np.zeros(told.shape, dtype=np.int8)
    for one in own[:-1]:
        place += told > one
    if not (own[place] == told).all():
        return None
    there = occurring(place, len(own))
    rank = np.searchsorted(there, np.arange(len(own))).astype(np.int32)
    return Numbers(torch.from_numpy(own[there]), torch.from_numpy(rank[place]))


def spread(values: Tensor, where: Tensor, block: Block = PIXEL) -> Tensor:
    """The map of these numbers ``(R,)``, which may repeat and stand in any order, by which of them each cell has."""
    return in_order(values, where, block).map()


def in_order(values: Tensor, where: Tensor, block: Block = PIXEL) -> Numbers:
    """The same as numbers that rise, none of them twice."""
    if not bool((values[1:] > values[:-1]).all()):
        values, place = torch.unique(values, return_inverse=True)
        where = place.int().index_select(0, where.flatten()).view(where.shape)
    return Numbers(values, where, block)


def _version(x: Tensor) -> int:
    """Rises with every change in place; torch does not count those of inference mode, where nobody here makes any."""
    return 0 if x.is_inference() else x._version


def elementwise(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``work`` of a map of any shape, done for every distinct number once; the map itself where it changes none."""
    if x.ndim < 2:  # no map: some numbers
        return work(x)
    given = numbers(x)
    made = of_each(work, given)
    return x if made is given else made.map()


def of_each(work: Callable[[Tensor], Tensor], x: Numbers) -> Numbers:
    """The same of the numbers that a map is made of; those themselves where it changes none."""
    made = work(x.values)
    return x if torch.equal(made, x.values) else in_order(made, x.where, x.block)


def of_pairs(work: Callable[[Tensor, Tensor], Tensor], x: Numbers, y: Numbers) -> Numbers:
    """``work`` of two maps of the same shape, done once for every pair of their numbers that occurs somewhere."""
    (xs, x_at, block), (ys, y_at, _) = _of_one_size(x, y)
    if len(xs) * len(ys) > x_at.numel():  # most pairs would occur nowhere
        return numbers(work(xs[x_at.long()], ys[y_at.long()]))._replace(block=block)
    pair = x_at.numpy() * len(ys) + y_at.numpy()
    there = occurring(pair, len(xs) * len(ys))
    first, second = (torch.from_numpy(one) for one in np.divmod(there, len(ys)))
    values, place = torch.unique(work(xs.index_select(0, first), ys.index_select(0, second)), return_inverse=True)
    places = np.empty(len(xs) * len(ys), dtype=np.int32)
    places[there] = place.numpy()
    return Numbers(values, torch.from_numpy(places[pair]), block)


def _of_one_size(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Two maps of the same shape in cells of the same size. What is one number everywhere is so in cells of any."""
    if x.block == y.block:
        return x, y
    if len(x.values) == 1:
        return y._replace(values=x.values, where=torch.zeros_like(y.where)), y
    if len(y.values) == 1:
        return x, x._replace(values=y.values, where=torch.zeros_like(x.where))
    return x._replace(where=x.pixels, block=PIXEL), y._replace(where=y.pixels, block=PIXEL)


def occurring(index: np.ndarray, count: int) -> np.ndarray:
    """Which of ``count`` things an index of any shape has, rising."""
    return np.flatnonzero(np.bincount(index.ravel(), minlength=count))
