"""What an attention gives the objects' words, by one small kernel for many layers.

A layer's fused attention tells the logarithm of its softmax's sum. The same kernel, asked for the objects' few keys
alone, tells the sum over those, and with an object's share of each key for values also how that sum is divided among
the objects. Both sums together say what each object gets of the whole::

    probability = exp(sum of the objects' keys - sum of all keys) * the object's part

Queries and keys of several layers are kept until there are enough of them: a GPU is told this once for all, where
the pictures are small and telling takes longer than working out. They are kept for no longer than they take little
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asyndm_ext.model.cross_probabilities import VALUE
from asyndm_ext.model.softmax_sum import Trusted, fused_kernel, right

_TOGETHER = 24  # layers whose sums are kept; together they take little more memory than one layer's queries


class ObjectKeys:
    """The objects' keys in the rows that are read, beside the network: the same in every layer.

    Args:
        rows: which of the batch's rows are read, W of them.
        columns: their keys ``(W, m)``, with others that count nothing where a row has fewer.
        share: ``(W, n, m)`` float32, what a key counts in the mean of an object's.
        length: how many keys hold all of them.

    Attributes:
        objects: n.
    """

    def __init__(self, rows: slice | Tensor, columns: Tensor, share: Tensor, length: int) -> None:
        self.rows, self.length = rows, length
        self.objects = share.shape[1]
        self._columns = columns.view(1, len(columns), 1, -1, 1)
        self._share = share.transpose(1, 2)
        self._values: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def picked(self, keys: Sequence[Tensor]) -> Tensor:
        """Of some layers' keys ``(N, heads, S, d)`` the objects', ``(G*W, heads, m, d)``."""
        own = [each[self.rows, :, : self.length] for each in keys]
        of_layers = own[0].unsqueeze(0) if len(own) == 1 else torch.stack(own)
        layers, _, heads, _, width = of_layers.shape
        columns = self._columns.expand(layers, -1, heads, -1, width)
        return of_layers.gather(3, columns).flatten(0, 1)

    def values(self, layers: int, heads: int, width: int, dtype: torch.dtype) -> Tensor:
        """``(G*W, heads, m, width)``: in column i :data:`VALUE` times what a key counts for object i."""
        key = (layers, heads, width, dtype)
        if key not in self._values:
            values = self._share.new_zeros(*self._share.shape[:2], width)
            values[..., : self.objects] = VALUE * self._share
            self._values[key] = values.to(dtype).unsqueeze(1).repeat(layers, heads, 1, 1)
        return self._values[key]


class _Layer(NamedTuple):
    """Queries ``(N, heads, L, d)`` and keys ``(N, heads, S, d)`` of an attention, and the log-sums of its softmax
    ``(N, heads, L)``."""

    q: Tensor
    k: Tensor
    sums: Tensor


class _Told(NamedTuple):
    """What the kernel has told of some layers, G of them.

    Attributes:
        parts: of the objects in the sums, times :data:`VALUE`, ``(G, W, heads, P, n)``.
        own, all: the log-sums over the objects' keys and over all, ``(G, W, heads, P)``.
    """

    parts: Tensor
    own: Tensor
    all: Tensor


class ObjectSums:
    """Collects the layers of a model call, and says what they have shown.

    Args:
        memory: see :func:`asyndm_ext.model.cross_probabilities.memory_for`.
        trusted: what is known of the kernels; added to.
    """

    def __init__(self, memory: int, trusted: Trusted) -> None:
        self._memory, self._trusted = memory, trusted
        self._wanted: ObjectKeys | None = None
        self._image = slice(0)
        self._kept: list[_Layer] = []
        self._room = self._waiting = 0
        self._told: list[_Told] = []
        self._found: Tensor | None = None

    def take(self, q: Tensor, k: Tensor, sums: Tensor, wanted: ObjectKeys, image: slice) -> bool:
        """Take a layer; whether that could be done.

        Args:
            q, k, sums: see :class:`_Layer`.
            wanted: what to read of it, the same in all layers of a call. image: which queries are the picture's.
        """
        sort = ("objects", q.shape, q.dtype, q.device)
        known = self._trusted.get(sort)
        if known is False:
            return False
        if self._kept:
            first = self._kept[0]
            if first.q.shape != q.shape or first.k.shape != k.shape or image != self._image:
                self._ask()
        self._wanted, self._image = wanted, image
        if known is None:
            told = self._told_of([_Layer(q, k, sums)], look=True)
            self._trusted[sort] = told is not None
            if told is None:
                return False
            self._told.append(told)
        else:
            if not self._kept:
                self._room = self._memory // (q.untyped_storage().nbytes() + k.untyped_storage().nbytes())
            self._kept.append(_Layer(q, k, sums))
            if len(self._kept) >= self._room:
                self._ask()
        self._waiting += 1
        if self._waiting == _TOGETHER:
            self._settle()
        return True

    def __bool__(self) -> bool:
        """Whether anything was taken."""
        return bool(self._kept or self._told or self._found is not None)

    def found(self) -> Tensor | None:
        """Probabilities ``(W, n, P)`` summed over the layers that were taken, mean over heads; nothing is left here."""
        self._settle()
        found, self._found, self._wanted = self._found, None, None
        return found

    def forget(self) -> None:
        """What was taken."""
        self._kept.clear()
        self._told.clear()
        self._found, self._wanted, self._waiting = None, None, 0

    def _ask(self) -> None:
        """The kernel, for the layers that were kept."""
        if self._kept:
            told = [self._told_of(self._kept)]
            if told[0] is None:  # for so many at once torch would take a kernel that does not tell
                told = [self._told_of([each]) for each in self._kept]
            self._kept.clear()
            for one in told:
                assert one is not None, "a layer that was taken would be missing"
                self._told.append(one)

    def _told_of(self, layers: Sequence[_Layer], look: bool = False) -> _Told | None:
        """What the kernel tells of these layers; None if none does.

        Args:
            look: whether it tells what it should.
        """
        wanted, image, first = self._wanted, self._image, layers[0]
        assert wanted is not None
        heads, width = first.q.shape[1], first.q.shape[-1]
        if wanted.objects > width:
            return None
        own = [layer.q[wanted.rows, :, image] for layer in layers]
        q = own[0] if len(layers) == 1 else torch.stack(own).flatten(0, 1)
        k = wanted.picked([layer.k for layer in layers])
        values = wanted.values(len(layers), heads, width, k.dtype)
        kernel = fused_kernel(q, k, values)
        if kernel is None:
            return None
        parts, sums = kernel(q, k, values)
        if look and not right(sums, q, k):
            return None
        # These are small enough to be cut when they are together.
        of_all = first.sums.unsqueeze(0) if len(layers) == 1 else torch.stack([layer.sums for layer in layers])
        parts = parts[..., : wanted.objects].float().unflatten(0, (len(layers), -1))
        return _Told(parts, sums.unflatten(0, (len(layers), -1)), of_all[:, wanted.rows, :, image])

    def _settle(self) -> None:
        """What has been taken goes to what was found."""
        self._ask()
        self._waiting = 0
        if not self._told:
            return
        parts, own, every = (x[0] if len(x) == 1 else torch.cat(x) for x in zip(*self._told, strict=True))
        self._told.clear()
        each = (own - every).exp_().unsqueeze(-1) * parts
        found = each.sum(dim=(0, 2)).transpose(1, 2) / (VALUE * each.shape[2])
        self._found = found if self._found is None else self._found.add_(found)
