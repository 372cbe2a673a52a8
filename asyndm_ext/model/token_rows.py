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


class RowTable:
    """The rows that the tokens take one modulation from.

    Args:
        rows: ``(R, k*D)``, all chunks of each. chunks: k.
        groups: chunks that are used close to one another: gathered together.
        ones: ``(k*D,)``, 1 at the chunks that are scales, 0 elsewhere. scales: their numbers.
        index: see :data:`Index`. batch: N.
        used: told whenever rows are gathered.
    """

    def __init__(
        self,
        rows: Tensor,
        chunks: int,
        groups: Sequence[range],
        ones: Tensor,
        scales: Sequence[int],
        index: Index,
        batch: int,
        used: Callable[[], None],
    ) -> None:
        self.rows, self.batch = rows, batch
        self.width = rows.shape[-1] // chunks
        self._groups, self._ones, self._scales, self._index, self._used = groups, ones, scales, index, used
        self._raised: Tensor | None = None
        self._gathered: dict[tuple[int, int], Tensor] = {}

    def can_raise(self, number: int) -> bool:
        """Whether the chunk is a scale: blocks multiply by 1 more."""
        return number in self._scales

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """Of rows ``(R, C)`` each token's own, ``(N, count, C)``."""
        self._used()
        return rows.index_select(0, self._index(count)).view(self.batch, count, -1)

    def chunk(self, number: int, raised: bool, count: int) -> Tensor:
        """A chunk of each token, ``(N, count, D)``; a scale raised by 1, or as it is."""
        if self.can_raise(number) and not raised:
            return self.gathered(self.part(self.rows, range(number, number + 1)), count)
        if (number, count) not in self._gathered:
            if self._raised is None:
                self._raised = self.rows + self._ones
            group = next((own for own in self._groups if number in own), range(number, number + 1))
            found = self.gathered(self.part(self._raised, group), count)
            self._gathered.update(zip(((own, count) for own in group), found.chunk(len(group), dim=-1), strict=True))
        # Held until it is used and no longer: it is as large as the tokens.
        return self._gathered.pop((number, count))

    def part(self, rows: Tensor, chunks: range) -> Tensor:
        return rows[:, chunks.start * self.width : chunks.stop * self.width]


class TokenRows:
    """Some chunks of a modulation, in the place of a tensor ``(N, C)``, or ``(N, 1, C)`` once it is expanded.

    What makes no numbers (chunks, the dimension for tokens) and what numbers are added to goes on standing for every
    token. An operator that meets tokens gets each token's own.

    Args:
        table: where they are from.
        chunks: which of its chunks.
        expanded: it has the dimension for tokens.
        raised: 1 has been added to it, a scale.
        made: rows ``(R, C)`` that were made of the table's, which count then.
    """

    def __init__(
        self, table: RowTable, chunks: range, expanded: bool, raised: bool = False, made: Tensor | None = None
    ) -> None:
        self._table, self._chunks, self._expanded, self._raised, self._made = table, chunks, expanded, raised, made

    # -- as a tensor looks

    @property
    def shape(self) -> torch.Size:
        rows = self._rows
        return torch.Size([self._table.batch, *[1] * self._expanded, rows.shape[-1]])

    @property
    def ndim(self) -> int:
        return len(self.shape)

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

    def __add__(self, other: Any) -> Any:
        return torch.add(self, other)  # type: ignore[call-overload]

    __radd__ = __add__

    def add_(self, other: Any) -> TokenRows:
        """In its place: it is raised from then on."""
        made = torch.add(self, other)  # type: ignore[call-overload]
        if not isinstance(made, TokenRows):
            _refuse("add_")
        vars(self).update(vars(made))
        return self

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)  # type: ignore[arg-type]

    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> TokenRows:
        whole = slice(None)
        if not self._expanded and key in ((whole, None), (whole, None, whole)):
            return self._view(expanded=True)
        _refuse("an index")

    # -- what becomes of it

    @property
    def _rows(self) -> Tensor:
        return self._table.part(self._table.rows, self._chunks) if self._made is None else self._made

    def _view(self, chunks: range | None = None, expanded: bool | None = None) -> TokenRows:
        expanded = self._expanded if expanded is None else expanded
        return TokenRows(self._table, chunks or self._chunks, expanded, self._raised, self._made)

    def _of(self, made: Tensor) -> TokenRows:
        return TokenRows(self._table, self._chunks, self._expanded, made=made)

    def _split(self, count: int) -> Iterator[TokenRows]:
        if self._made is not None:
            yield from (self._of(each) for each in self._made.chunk(count, dim=-1))
            return
        each = -(-len(self._chunks) // count)
        if len(self._chunks) % each:
            _refuse("chunks of another size")
        for first in range(self._chunks.start, self._chunks.stop, each):
            yield self._view(range(first, first + each))

    def _raise(self) -> TokenRows | None:
        """1 more, if it is a scale as it came."""
        number = self._chunks.start
        if self._made is None and not self._raised and len(self._chunks) == 1 and self._table.can_raise(number):
            return TokenRows(self._table, self._chunks, self._expanded, raised=True)
        return None

    def _beside(self, tokens: Tensor) -> Tensor:
        """Each token's own."""
        count = tokens.shape[1:-1].numel()
        if self._made is None and len(self._chunks) == 1:
            found = self._table.chunk(self._chunks.start, self._raised, count)
        else:
            found = self._table.gathered(self._rows, count)
        return found if tokens.ndim == 3 else found.view(*tokens.shape[:-1], -1)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, first = func.__name__, args[0]
        mine = isinstance(first, TokenRows)
        last = first.ndim - 1 if mine else 0
        dim = kwargs.get("dim", args[-1] if len(args) > 1 else None)
        if mine and name == "unsqueeze" and not first._expanded and dim in (1, -2):
            return first._view(expanded=True)
        if mine and name == "chunk" and dim in (last, -1):
            return tuple(first._split(args[1] if len(args) > 1 else kwargs["chunks"]))
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if mine and not tensors and sum(isinstance(x, TokenRows) for x in args) == 1:
            if name in ("add", "__add__", "__radd__") and args[1:] == (1,) and not kwargs:
                raised = first._raise()
                if raised is not None:
                    return raised
            # Numbers, or a function of one: of the rows as of the tokens.
            return first._of(func(first._final(), *args[1:], **kwargs))
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
