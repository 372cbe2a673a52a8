"""Maps of few numbers: a level map has thousands of pixels and a few hundred different levels.

What is worked out elementwise is worked out once for each number that occurs. Which numbers these are is sorted out
once, and kept beside the map and all maps that are made of it: of the strengths and the heights of the clock, the next
heights, of these the levels, of the levels the timesteps. A map that has been changed in place is sorted out anew.

A mask from attention is one of cells of several pixels, and so are all maps that follow from it: there the cells are
kept, not the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

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


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Map to its version in torch's count, and its :class:`Numbers`."""


def repeated(cells: Tensor, block: Block) -> Tensor:
    """Every cell of ``(...,h,w)`` as often as it has pixels."""
    if block == PIXEL:
        return cells
    (*others, h, w), (down, across) = cells.shape, block
    wide = cells[..., None].expand(*others, h, w, across).reshape(*others, h, 1, w * across)
    return wide.expand(*others, h, down, w * across).reshape(*others, h * down, w * across)  # rows are copied faster


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


def spread(values: Tensor, where: Tensor, block: Block = PIXEL) -> Tensor:
    """The map of these numbers ``(R,)``, which may repeat and stand in any order, by which of them each cell has."""
    if not bool((values[1:] > values[:-1]).all()):
        values, place = torch.unique(values, return_inverse=True)
        where = place.int().index_select(0, where.flatten()).view(where.shape)
    made = repeated(values.index_select(0, where.flatten()).view(where.shape), block)
    _known[made] = _version(made), Numbers(values, where, block)
    return made


def _version(x: Tensor) -> int:
    """Rises with every change in place; torch does not count those of inference mode, where nobody here makes any."""
    return 0 if x.is_inference() else x._version


def elementwise(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``work`` of a map of any shape, done for every distinct number once; the map itself where it changes none."""
    values, where, block = numbers(x)
    made = work(values)
    return x if torch.equal(made, values) else spread(made, where, block)


def pairwise(work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """``work`` of two maps of the same shape, done once for every pair of numbers that occurs somewhere."""
    (xs, x_at, block), (ys, y_at, _) = _of_one_size(numbers(x), numbers(y))
    if len(xs) * len(ys) > x_at.numel():  # most pairs would occur nowhere
        cells = numbers(work(xs[x_at.long()], ys[y_at.long()]))
        return spread(cells.values, cells.where, block)
    pair, used = occurring(x_at * len(ys) + y_at, len(xs) * len(ys))
    return spread(work(xs[used // len(ys)], ys[used % len(ys)]), pair, block)


def _of_one_size(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Two maps of the same shape in cells of the same size. What is one number everywhere is so in cells of any."""
    if x.block == y.block:
        return x, y
    if len(x.values) == 1:
        return y._replace(values=x.values, where=torch.zeros_like(y.where)), y
    if len(y.values) == 1:
        return x, x._replace(values=y.values, where=torch.zeros_like(x.where))
    return x._replace(where=x.pixels, block=PIXEL), y._replace(where=y.pixels, block=PIXEL)


def occurring(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """An index of any shape into ``count`` things, counted among those that occur only; and which these are, rising."""
    flat = index.flatten()
    there = torch.bincount(flat, minlength=count) > 0
    rank = there.cumsum(0, dtype=torch.int32) - 1
    return rank.index_select(0, flat).view(index.shape), there.nonzero().flatten()
