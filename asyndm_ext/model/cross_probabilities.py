"""What cross-attentions give chosen tokens, from their queries and keys: of one layer, or of several at once.

On a CPU that is an explicit softmax. A GPU takes a fused kernel, whose values are 1 at an object's tokens, and is told
it for several layers at once where the pictures are small: there telling takes longer than working out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.costs import works_slowly

# What may be taken beside a network for a while: a share of what its weights take, and bytes.
_SHARE, _LEAST, _MOST = 0.01, 2**24, 2**27
_FEW = 4  # layers: to look at fewer together takes no fewer kernels than one by one


def memory_for(network: nn.Module) -> int:
    """How many bytes of queries and keys may be kept beside a network until they are looked at together."""
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    return min(max(int(_SHARE * weights), _LEAST), _MOST)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in the dtype of what goes into them: hosts sample under autocast, which would make them half."""
    if device.type in ("cpu", "cuda"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # older versions of torch know no autocast elsewhere, and refuse to turn it off


def token_probabilities(q: Tensor, k: Tensor, heads: int, scale: float, tokens: Tensor) -> Tensor:
    """Softmax over all keys, then per object the sum over its tokens, of the mean over heads.

    Args:
        q: ``(W, L, heads*d)``. k: ``(W, T, heads*d)``. Any dtype; computed in float32.
        tokens: ``(W, T, n)`` float32, how often a key is a token of an object.

    Returns:
        ``(W, n, L)`` float32; zeros for an object without tokens.
    """
    queries, keys = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    with without_autocast(q.device):
        probabilities = (queries @ keys.transpose(2, 3) * scale).softmax(dim=-1).mean(dim=1)
        return (probabilities @ tokens).transpose(1, 2)


# Half floats have few bits left for probabilities below 1e-4; a power of two costs no precision.
VALUE = 1024.0
# torch's own: others exchange the public one, by kernels that round what they attend to.
attend: Callable[..., Tensor] = torch._C._nn.scaled_dot_product_attention


def fused_probabilities(q: Tensor, k: Tensor, heads: int, scale: float, values: Tensor) -> Tensor:
    """The same as one kernel: attention over values that are 1 at an object's tokens and 0 elsewhere.

    Args:
        q, k: as for :func:`token_probabilities`.
        values: ``(W, T, width)`` of their dtype, :data:`VALUE` where a key is a token of the object with the column's
            number. As wide as a head they suit the flash kernels, which want it so.

    Returns:
        ``(W, heads, L, width)``, sums over tokens times :data:`VALUE`. In the dtype of the queries, as the fast kernels
        are; they add up in float32.
    """
    queries, keys = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    every_head = values.unsqueeze(1).expand(-1, heads, -1, -1)
    with without_autocast(q.device) if q.dtype == torch.float32 else nullcontext():
        return attend(queries, keys, every_head, scale=scale)


class LeftAlone:
    """Whether queries and keys are after a model call what they were when a layer had made them: an attention may work
    in their place. It is seen once, of the first layer of a run, which waits for the device."""

    def __init__(self) -> None:
        self.seen: bool | None = None
        """None: not looked yet."""
        self._first: list[tuple[Tensor, Tensor]] = []

    def note(self, *made: Tensor) -> None:
        """What a layer has just made."""
        if self.seen is None and not self._first:
            self._first = [(one, one.clone()) for one in made]

    def look(self) -> None:
        """The model call is over."""
        if self._first:
            self.seen = all(torch.equal(*pair) for pair in self._first)
            self._first = []


@dataclass
class Reading:
    """What the layers of a call are read for, and what they have shown.

    Attributes:
        rows: which of the call's batch are read.
        tokens: see :func:`token_probabilities`. values: see :func:`fused_probabilities`; empty on the CPU.
        share: ``(W, n, 1)``, what a layer's sums over heads and tokens are multiplied by for their means.
        memory: see :func:`memory_for`. left: whether what is kept stays what it is.
        found: the sum over layers, ``(W, n, L)``; ``wide``: of more layers, as the kernel answers; ``number``: how many
            there are in both, and in ``kept``.
        kept: queries and keys of the batch that have not been looked at yet, and their scale; ``room``: for how many.
    """

    rows: slice | Tensor
    tokens: Tensor
    values: Tensor
    share: Tensor
    memory: int
    left: LeftAlone
    found: Tensor | None = None
    wide: Tensor | None = None
    number: int = 0
    kept: list[tuple[Tensor, Tensor, int, float]] = field(default_factory=list)
    room: int = 0

    def take(self, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """Read a layer: queries and keys of the call's batch. On a GPU several are read at once, as long as they take
        little memory until then."""
        if works_slowly(q.device):
            self._more(token_probabilities(q[self.rows], k[self.rows], heads, scale, self.tokens))
        else:
            self._take(q, k, heads, scale)
        self.number += 1

    def _take(self, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        if not self.kept:
            self.room = self.memory // (q.untyped_storage().nbytes() + k.untyped_storage().nbytes())
            if self.room >= _FEW:
                self.left.note(q, k)
        elif self.kept[0][2:] != (heads, scale):
            self._look()
        if self.room < _FEW or not self.left.seen:
            found = fused_probabilities(q[self.rows], k[self.rows], heads, scale, self.values)
            self.wide = found.float() if self.wide is None else self.wide.add_(found)
            return
        self.kept.append((q, k, heads, scale))
        if len(self.kept) == self.room:
            self._look()

    def _look(self) -> None:
        """At what was kept."""
        if not self.kept:
            return
        layers, (_, _, heads, scale) = len(self.kept), self.kept[0]
        q = torch.stack([one[self.rows] for one, *_ in self.kept]).flatten(0, 1)
        k = torch.stack([one[self.rows] for _, one, *_ in self.kept]).flatten(0, 1)
        self.kept.clear()
        found = fused_probabilities(q, k, heads, scale, self.values.repeat(layers, 1, 1))
        self._more(self._sums(found.unflatten(0, (layers, -1)), (0, 2)))

    def _sums(self, found: Tensor, dims: int | tuple[int, int]) -> Tensor:
        """Over heads, and layers perhaps: ``(W, n, L)``."""
        return found[..., : self.share.shape[1]].sum(dim=dims, dtype=torch.float32).transpose(1, 2)

    def _more(self, found: Tensor) -> None:
        self.found = found if self.found is None else self.found.add_(found)

    def means(self) -> Tensor:
        """Sum over layers of the mean over heads and tokens, ``(W, n, L)``; nothing is left here."""
        self._look()
        self.left.look()
        if self.wide is not None:
            self._more(self._sums(self.wide, 1))
        found = self.found
        self.forget()
        assert found is not None
        return found * self.share

    def forget(self) -> None:
        """What the layers have shown."""
        self.found = self.wide = None
        self.number = 0
        self.kept.clear()
