"""Which part of the text an attention was really given.

Another extension may call a cross-attention several times, each time with a part of the text's columns and perhaps with
some of the rows (Regional Prompter gives each of its regions its own chunk). Where an object's tokens are is known for
the whole text only, so a part has to be recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where a batch of features lies in memory: rows that are cut out of it can be told by that.

    Attributes:
        start: address of the first row. step: bytes from row to row.
        rows: how many. row: shape and strides of one.
    """

    start: int
    step: int
    rows: int
    row: tuple

    @classmethod
    def of(cls, x: Tensor) -> Place:
        """Of ``(N,L,C)``."""
        step = x.stride(0) * x.element_size()
        return cls(x.data_ptr(), step, len(x), (x.shape[1:], x.stride()[1:], x.dtype))

    def first_of(self, part: Tensor) -> int | None:
        """The first of the rows that ``part`` consists of, one after another; None if it is no part of these."""
        other = Place.of(part)
        if other.row != self.row or self.step == 0 or (other.step != self.step and other.rows > 1):
            return None
        first, rest = divmod(other.start - self.start, self.step)
        return first if rest == 0 and 0 <= first <= self.rows - other.rows else None


def column_keys(text: Tensor) -> list[bytes]:
    """What tells the columns of a text ``(T,D)`` from one another: their bytes."""
    raw = text.detach().cpu().contiguous().view(torch.uint8).numpy()
    return [column.tobytes() for column in raw]


def columns_of(part: Sequence[bytes], whole: Sequence[bytes]) -> list[int | None]:
    """For each column of a part the column of the whole text that it is, None where it is none.

    Every chunk begins with the same column, so the longest stretch that fits is taken.
    """
    places: dict[bytes, list[int]] = {}
    for number, key in enumerate(whole):
        places.setdefault(key, []).append(number)
    found: list[int | None] = []
    while len(found) < len(part):
        at = len(found)
        starts = places.get(part[at], ())
        length, start = max(((_common(part, at, whole, one), -one) for one in starts), default=(0, 0))
        found += range(-start, -start + length) if length else [None]
    return found


def _common(part: Sequence[bytes], at: int, whole: Sequence[bytes], start: int) -> int:
    """How far both go on alike from there."""
    length = 0
    while at + length < len(part) and start + length < len(whole) and part[at + length] == whole[start + length]:
        length += 1
    return length
