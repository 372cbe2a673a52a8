"""A modulation of every token's own, for networks that know one of each row of the batch.

A block makes chunks of a vector ``(N, k*D)``, gives each a dimension for the tokens, and multiplies the tokens with it:
``x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)``. A :class:`TokenRows` passes for that vector. Where it meets
tokens it is each token's own, ``(N, L, D)``, gathered then; the block's own arithmetic does the rest, and nothing is
launched for it but the gathering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

Index = Callable[[int], Tensor]
"""The row of each token ``(N*L,)``, for a number of tokens L."""


AT_ONCE = 2**26
"""Bytes that all chunks of all tokens may take to be gathered together."""


class Chunks:
    """What a modulation consists of, the same in every call.

    Args:
        number: how many vectors a row holds, k.
        groups: those that are used close to one another: gathered together. None is in two.
        ones: ``(k*D,)``, 1 at those that are scales, 0 elsewhere. scales: their numbers.
    """

    def __init__(self, number: int, groups: Sequence[range], ones: Tensor, scales: Sequence[int]) -> None:
        self.number, self.width, self.ones, self.scales = number, len(ones) // number, ones, frozenset(scales)
        self.all, self._each = range(number), [range(i, i + 1) for i in range(number)]
        self.group_of = [next((own for own in groups if i in own), range(i, i + 1)) for i in self.all]
        firsts = sorted({own.start for own in self.group_of})
        self.widths = [len(self.group_of[first]) * self.width for first in firsts]
        self.place_of = [firsts.index(own.start) for own in self.group_of]

    def each(self, chunks: range) -> list[range]:
        """One by one."""
        return self._each[chunks.start : chunks.stop]


class RowTable:
    """The rows that the tokens take one modulation from.

    Args:
        rows: ``(R, k*D)``, all chunks of each.
        chunks: what they are.
        index: see :data:`Index`. batch: N.
        used: told when rows are gathered for the first time.
    """

    __slots__ = ("_gathered", "_index", "_parts", "_raised", "_used", "batch", "chunks", "rows", "width")

    def __init__(self, rows: Tensor, chunks: Chunks, index: Index, batch: int, used: Callable[[], None]) -> None:
        self.rows, self.chunks, self.batch, self.width = rows, chunks, batch, chunks.width
        self._index = index
        self._used: Callable[[], None] | None = used
        self._raised: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()
        self._gathered: dict[int, list[Tensor | None]] = {}

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """Of rows ``(R, C)`` each token's own, ``(N, count, C)``."""
        if self._used is not None:
            self._used()
            self._used = None
        index = self._index(count)
        if index.device != rows.device:
            index = index.to(rows.device)
        return rows.index_select(0, index).view(self.batch, count, -1)

    def chunk(self, number: int, raised: bool, count: int) -> Tensor:
        """A chunk of each token, ``(N, count, D)``; a scale raised by 1, or as it is."""
        if not raised and number in self.chunks.scales:
            return self.gathered(self.part(self.rows, range(number, number + 1)), count)
        # Held until it is used and no longer: it is as large as the tokens.
        parts = self._gathered.get(count)
        if parts is not None and (found := parts[number]) is not None:
            parts[number] = None
            return found
        return self._group(number, count)

    def _group(self, number: int, count: int) -> Tensor:
        """The chunk, with those that are used near it: all of them where that is little."""
        chunks = self.chunks
        if self._raised is None:
            self._raised = self.rows + chunks.ones
        rows, group = self._raised, chunks.all
        if self.batch * count * rows.shape[-1] * rows.element_size() > AT_ONCE:
            if not self._parts:
                self._parts = rows.split_with_sizes(chunks.widths, dim=-1)
            rows, group = self._parts[chunks.place_of[number]], chunks.group_of[number]
        whole = self.gathered(rows, count)
        if len(group) == 1:
            return whole
        parts = self._gathered.get(count)
        if parts is None:
            parts = self._gathered[count] = [None] * chunks.number
        parts[group.start : group.stop] = whole.chunk(len(group), dim=-1)
        found, parts[number] = parts[number], None
        assert found is not None
        return found

    def part(self, rows: Tensor, chunks: range) -> Tensor:
        return rows[:, chunks.start * self.width : chunks.stop * self.width]


class TokenRows:
    """Some chunks of a modulation, in the place of a tensor ``(N, C)``, or ``(N, 1, C)`` once it is expanded.

    What makes no numbers (chunks, the dimension for tokens) and what numbers are added to goes on standing for every
    token. An operator that meets tokens gets each token's own.

    Args:
        table: where they are from.
        chunks: which of its chunks, one after another.
        expanded: it has the dimension for tokens.
        raised: 1 has been added to it, a scale.
        made: rows ``(R, C)`` that were made of the table's, which count then.
    """

    __slots__ = ("_chunks", "_expanded", "_made", "_raised", "_table")

    def __init__(
        self, table: RowTable, chunks: range, expanded: bool, raised: bool = False, made: Tensor | None = None
    ) -> None:
        self._table, self._chunks, self._expanded, self._raised, self._made = table, chunks, expanded, raised, made

    # -- as a tensor looks

    @property
    def shape(self) -> torch.Size:
        width = len(self._chunks) * self._table.width if self._made is None else self._made.shape[-1]
        return torch.Size([self._table.batch, *[1] * self._expanded, width])

    @property
    def ndim(self) -> int:
        return 2 + self._expanded

    @property
    def dtype(self) -> torch.dtype:
        return self._rows.dtype

    @property
    def device(self) -> torch.device:
        return self._rows.device

    def __len__(self) -> int:
        return self._table.batch

    def __getattr__(self, name: str) -> Any:
        function = None if name.startswith("_") else getattr(torch, name, None)
        if not callable(function):
            raise AttributeError(name)
        return partial(function, self)

    def to(self, *args: Any, **kwargs: Any) -> TokenRows:
        made = self._final().to(*args, **kwargs)
        return self if (made.dtype, made.device) == (self.dtype, self.device) else self._of(made)

    type = to

    def float(self) -> TokenRows:
        return self.to(torch.float32)

    # What blocks do most goes straight to its answer; everything else by way of torch.

    def chunk(self, chunks: int, dim: int = 0) -> tuple[TokenRows, ...]:
        if dim not in (-1, 1 + self._expanded):
            _refuse("chunks of tokens")
        if self._made is None and chunks == len(self._chunks):
            table, expanded, raised = self._table, self._expanded, self._raised
            return tuple([TokenRows(table, each, expanded, raised) for each in table.chunks.each(self._chunks)])
        return tuple(self._split(chunks))

    def unsqueeze(self, dim: int) -> Any:
        if self._expanded or dim not in (1, -2):
            return torch.unsqueeze(self, dim)  # type: ignore[arg-type]
        return TokenRows(self._table, self._chunks, True, self._raised, self._made)

    def __add__(self, other: Any) -> Any:
        if type(other) is int and other == 1 and self._is_a_scale():
            return TokenRows(self._table, self._chunks, self._expanded, raised=True)
        return torch.add(self, other)  # type: ignore[call-overload]

    __radd__ = __add__

    def add_(self, other: Any) -> TokenRows:
        """In its place: it is raised from then on."""
        made = self + other
        if not isinstance(made, TokenRows):
            _refuse("add_")
        self._raised, self._made = made._raised, made._made
        return self

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)  # type: ignore[arg-type]

    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> TokenRows:
        whole = slice(None)
        if not self._expanded and key in ((whole, None), (whole, None, whole)):
            return self.unsqueeze(1)
        _refuse("an index")

    # -- what becomes of it

    @property
    def _rows(self) -> Tensor:
        return self._table.part(self._table.rows, self._chunks) if self._made is None else self._made

    def _of(self, made: Tensor) -> TokenRows:
        return TokenRows(self._table, self._chunks, self._expanded, made=made)

    def _split(self, count: int) -> Iterator[TokenRows]:
        if self._made is not None:
            yield from (self._of(each) for each in self._made.chunk(count, dim=-1))
            return
        each, rest = divmod(len(self._chunks), count)
        if rest:
            _refuse("chunks of another size")
        for first in range(self._chunks.start, self._chunks.stop, each):
            yield TokenRows(self._table, range(first, first + each), self._expanded, self._raised)

    def _is_a_scale(self) -> bool:
        """As it came: blocks multiply by 1 more."""
        only = self._made is None and not self._raised and len(self._chunks) == 1
        return only and self._chunks.start in self._table.chunks.scales

    def _beside(self, tokens: Tensor) -> Tensor:
        """Each token's own."""
        shape = tokens.shape
        count = shape[1] if len(shape) == 3 else shape[1:-1].numel()
        if self._made is None and len(self._chunks) == 1:
            found = self._table.chunk(self._chunks.start, self._raised, count)
        else:
            found = self._table.gathered(self._rows, count)
        return found if len(shape) == 3 else found.view(*shape[:-1], -1)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if len(args) == 2 and not kwargs:  # what blocks do: x * scale, x + shift, gate * x
            one, other = args
            if type(other) is TokenRows:
                if type(one) is Tensor and one.ndim > 2:
                    return func(one, other._beside(one))
            elif type(other) is Tensor and other.ndim > 2:
                return func(one._beside(other), other)
        kwargs = kwargs or {}
        name, first = func.__name__, args[0]
        mine = isinstance(first, TokenRows)
        dim = kwargs.get("dim", args[-1] if len(args) > 1 else None)
        if mine and name == "unsqueeze" and not first._expanded and dim in (1, -2):
            return first.unsqueeze(1)
        if mine and name == "chunk":
            return first.chunk(*args[1:], **kwargs)
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if mine and not tensors and sum(isinstance(x, TokenRows) for x in args) == 1:
            if name in ("add", "__add__", "__radd__") and args[1:] == (1,) and not kwargs and first._is_a_scale():
                return first + 1
            # Numbers, or a function of one: of the rows as of the tokens.
            made = func(first._final(), *args[1:], **kwargs)
            return first._of(made) if isinstance(made, Tensor) else _refuse(name)
        tokens = next((x for x in tensors if x.ndim > 2), None)
        if tokens is None:
            _refuse(name)
        args = [x._beside(tokens) if isinstance(x, TokenRows) else x for x in args]
        kwargs = {key: x._beside(tokens) if isinstance(x, TokenRows) else x for key, x in kwargs.items()}
        return func(*args, **kwargs)

    def _final(self) -> Tensor:
        return self._rows + 1 if self._raised else self._rows


def _refuse(what: str) -> NoReturn:
    """A block does something with its modulation that is not known."""
    raise RuntimeError(f"the network uses its modulation in a way that AsynDM does not know ({what})")
