"""Cross-attention probabilities of chosen tokens, without touching the host's attention.

The projections ``to_q`` and ``to_k`` of every cross-attention are called by all of the WebUI's attention
optimizations (and carry LoRA and hypernetworks), so their outputs are the exact queries and keys whatever
runs afterwards. Probabilities are computed again from those, for the layers at a quarter of the
latent's side (or another, which a model can name), for the conditional rows and for the objects' columns only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.costs import works_slowly
from asyndm_ext.machine.transfer import sent, sent_together
from asyndm_ext.model.text_part import Place, column_keys, columns_of
from asyndm_ext.region.grid import halved_grid

_KEPT = 16  # readings
# What may be taken beside a network for a while: a share of what its weights take, and bytes.
_SHARE, _LEAST, _MOST = 0.01, 2**24, 2**27
_FEW = 4  # layers: to look at fewer together takes no fewer kernels than one by one


def memory_for(network: nn.Module) -> int:
    """How many bytes of queries and keys may be kept beside a network until they are looked at together."""
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    return min(max(int(_SHARE * weights), _LEAST), _MOST)


def quarter_grid(height: int, width: int) -> tuple[int, int]:
    """Size of the feature map after two strided convolutions, each rounding up."""
    return halved_grid(height, width, 2)


@dataclass(frozen=True)
class TokenRow:
    """What to read from one row of the network's batch.

    Attributes:
        image: index of the image that the row belongs to.
        columns: for each object the text columns of its tokens; empty where this row's text lacks the object.
    """

    image: int
    columns: Sequence[Sequence[int]]


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


class AttentionCapture(ABC):
    """Averages maps over the layers of one or several model calls, an image's rows and its texts apart.

    Args:
        objects: number of objects.
        images: number of images in the batch.
    """

    def __init__(self, objects: int, images: int) -> None:
        self._objects, self._images = objects, images
        self._size = (0, 0)
        self._rows: Sequence[TokenRow | None] = ()
        self._sum: Tensor | None = None
        self._weight = torch.zeros(images, objects)
        self._divisor: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def attached(self) -> AbstractContextManager[Any]:
        """Hooks on the network live inside this block only."""

    @abstractmethod
    def grid(self, latent_size: tuple[int, int]) -> tuple[int, int]:
        """The size ``(h, w)`` of the maps for a latent ``(H, W)``."""

    def begin(self, latent_size: tuple[int, int]) -> None:
        """Forget what was accumulated; the next model calls are on latents of this ``(H, W)``."""
        self._size = self.grid(latent_size)
        self._sum = None
        self._weight.zero_()

    def read(self, rows: Sequence[TokenRow | None]) -> None:
        """The rows of the next model call's batch; None for rows that are not conditional."""
        self._rows = rows

    def maps(self) -> Tensor | None:
        """Averaged attention ``(B,n,h,w)``, float32 beside the network; None if no layer was seen on the grid."""
        if self._sum is None:
            return None
        weight = self._weight.clamp_min(1).unsqueeze(-1)
        if self._divisor is None or not torch.equal(weight, self._divisor[0]):  # the same in every step, mostly
            self._divisor = weight, sent(weight, self._sum.device)
        return (self._sum / self._divisor[1]).view(self._images, self._objects, *self._size)

    def _add(self, wanted: Sequence[TokenRow], images: Tensor, found: Tensor, layers: int) -> None:
        """What a call has shown.

        Args:
            wanted: the rows that were read. images: those that they belong to ``(W,)``, beside the network.
            found: probabilities ``(W, n, h*w)``, sums over so many layers.
        """
        if self._sum is None:
            self._sum = torch.zeros(self._images, self._objects, found.shape[-1], device=found.device)
        self._sum.index_add_(0, images, found)
        for row in wanted:
            self._weight[row.image] += layers * torch.tensor([1.0 if len(c) else 0.0 for c in row.columns])


@dataclass
class _Reading:
    """What the layers of a call are read for, and what they have shown.

    Attributes:
        there: the rows that are read, as they are in this call's text. rows: which of the call's batch they are.
        images: those that they belong to ``(W,)``.
        tokens: see :func:`token_probabilities`. values: see :func:`fused_probabilities`; empty on the CPU.
        share: ``(W, n, 1)``, what a layer's sums over heads and tokens are multiplied by for their means.
        memory: see :func:`memory_for`.
        found: the sum over layers, ``(W, n, L)``; ``wide``: of more layers, as the kernel answers; ``layers``: how many
            there are in both, and in ``kept``.
        kept: queries and keys of the batch that have not been looked at yet, and their scale; ``room``: for how many.
    """

    there: list[TokenRow]
    rows: slice | Tensor
    images: Tensor
    tokens: Tensor
    values: Tensor
    share: Tensor
    memory: int
    found: Tensor | None = None
    wide: Tensor | None = None
    layers: int = 0
    kept: list[tuple[Tensor, Tensor, int, float]] = field(default_factory=list)
    room: int = 0

    def take(self, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """Read a layer: queries and keys of the call's batch. On a GPU several are read at once, as long as they take
        little memory until then."""
        self.layers += 1
        if works_slowly(q.device):
            self._more(token_probabilities(q[self.rows], k[self.rows], heads, scale, self.tokens))
            return
        if not self.kept:
            self.room = self.memory // (q.untyped_storage().nbytes() + k.untyped_storage().nbytes())
        elif self.kept[0][2:] != (heads, scale):
            self._look()
        if self.room < _FEW:
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
        q, k = (torch.stack([each[i][self.rows] for each in self.kept]).flatten(0, 1) for i in (0, 1))
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
        if self.wide is not None:
            self._more(self._sums(self.wide, 1))
        found = self.found
        self.forget()
        assert found is not None
        return found * self.share

    def forget(self) -> None:
        """What the layers have shown."""
        self.found = self.wide = None
        self.layers = 0
        self.kept.clear()


class CrossAttentionCapture(AttentionCapture):
    """Accumulates Eq. 7's averaged maps over the cross-attentions of a UNet.

    Args:
        unet: the network; its cross-attentions are the modules named ``attn2`` with ``to_q`` and ``to_k``.
        objects: number of objects.
        images: number of images in the batch.
        halvings: how often the latent was halved where the attention is looked at.
    """

    def __init__(self, unet: nn.Module, objects: int, images: int, halvings: int = 2) -> None:
        super().__init__(objects, images)
        self._halvings = halvings
        self._layers = [
            m
            for name, m in unet.named_modules()
            if name.rsplit(".", 1)[-1] == "attn2" and hasattr(m, "to_q") and hasattr(m, "to_k")
        ]
        self._unet = unet
        self._queries: dict[int, tuple[int, Tensor]] = {}
        self._input: tuple[int, Tensor] | None = None
        self._memory = memory_for(unet)
        self._text: Tensor | None = None
        self._keys: dict[tuple[int, torch.dtype], list[bytes]] = {}
        self._told: tuple = ()
        self._readings: dict[tuple, _Reading] = {}

    @property
    def layers(self) -> int:
        """Number of cross-attentions found in the network."""
        return len(self._layers)

    @contextmanager
    def attached(self) -> Iterator[CrossAttentionCapture]:
        """Register the hooks; they are removed however the block is left."""
        handles = []
        try:
            handles.append(self._unet.register_forward_pre_hook(self._on_network, with_kwargs=True))
            for number, layer in enumerate(self._layers):
                handles.append(layer.register_forward_pre_hook(self._on_layer(number), with_kwargs=True))
                handles.append(layer.to_q.register_forward_hook(self._on_query(number)))
                handles.append(layer.to_k.register_forward_hook(self._on_key(number, layer)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.read(())
            self._readings.clear()

    def begin(self, latent_size: tuple[int, int]) -> None:
        super().begin(latent_size)
        for reading in self._readings.values():
            reading.forget()

    def read(self, rows: Sequence[TokenRow | None]) -> None:
        self._add_up()
        super().read(rows)
        self._told = tuple(None if row is None else (row.image, *map(tuple, row.columns)) for row in rows)
        self._queries.clear()
        self._input = None
        self._keys.clear()
        self._text = None

    def grid(self, latent_size: tuple[int, int]) -> tuple[int, int]:
        return halved_grid(*latent_size, self._halvings)

    # -- what the network and its layers are given

    def _on_network(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if self._rows:
            given = [kwargs.get("context"), kwargs.get("encoder_hidden_states"), *args[2:3]]
            self._text = next((text for text in given if isinstance(text, Tensor) and text.ndim == 3), None)

    def _on_layer(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs.get("x", kwargs.get("hidden_states"))
            if self._rows and isinstance(x, Tensor) and x.ndim == 3 and self._on_grid(x):
                self._input = number, x

        return hook

    def _on_grid(self, x: Tensor) -> bool:
        return x.shape[1] == self._size[0] * self._size[1]

    # -- what it makes of them

    def _on_query(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if self._rows and output.ndim == 3 and self._on_grid(output):
                first = self._first_row(number, args[0])
                if first is not None:
                    self._queries[number] = first, output

        return hook

    def _first_row(self, number: int, x: Tensor) -> int | None:
        """The first of the batch's rows that the queries are of; None where it cannot be told."""
        if len(x) == len(self._rows):
            return 0
        there, whole = self._input or (None, x)
        return Place.of(whole).first_of(x) if there == number and len(whole) == len(self._rows) else None

    def _on_key(self, number: int, layer: Any) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            first, q = self._queries.pop(number, (0, None))
            if q is None or len(output) != len(q):
                return
            # Memory-efficient attention classes keep no scale; it is always this one.
            scale = getattr(layer, "scale", None) or (q.shape[-1] / layer.heads) ** -0.5
            reading = self._reading(args[0], first, q, layer.heads)
            if reading.there:
                reading.take(q, output, layer.heads, scale)

        return hook

    def _reading(self, text: Tensor, first: int, q: Tensor, heads: int) -> _Reading:
        """What to read from layers with these queries ``(N,L,heads*d)``, kept from step to step.

        Args:
            text: what the layer is given ``(N,t,D)``. first: the first of the network's rows that it is of.
        """
        rows = range(first, first + len(q))
        whole = self._text is None or text.shape[1] == self._text.shape[1]
        key = (self._told[first : first + len(q)], text.shape[1], q.shape[-1] // heads, heads, q.dtype, q.device)
        if whole and key in self._readings:
            return self._readings[key]
        numbered = [(row - first, self._really_there(self._rows[row], text[row - first], row)) for row in rows]
        found = [(number, there) for number, there in numbered if there is not None]
        if len(self._readings) >= _KEPT:  # the prompt changes from step to step
            self._add_up()
            self._readings.clear()
        self._readings[key if whole else (*key, len(self._readings))] = made = self._made(found, *key[1:])
        return made

    def _made(
        self,
        found: Sequence[tuple[int, TokenRow]],
        keys: int,
        width: int,
        heads: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> _Reading:
        """Args: found: the numbers of the rows that are read, and what of them. The rest: of the layer."""
        there, numbers = [row for _, row in found], [number for number, _ in found]
        tokens = torch.zeros(len(there), keys, self._objects)
        for own, row in zip(tokens, there, strict=True):
            for number, columns in enumerate(row.columns):
                for column in columns:
                    own[column, number] += 1
        share = 1 / tokens.sum(dim=1).clamp_min(1).unsqueeze(-1)
        values = torch.empty(0)
        if not works_slowly(device):
            values = torch.zeros(len(there), keys, max(width, self._objects))
            values[..., : self._objects] = VALUE * tokens
            values, share = sent_together([values, share / (heads * VALUE)], device)
            values = values.to(dtype)
        follow = numbers == [*range(numbers[0], numbers[0] + len(numbers))] if numbers else True
        rows: slice | Tensor = slice(numbers[0] if numbers else 0, numbers[-1] + 1 if numbers else 0)
        if not follow:
            rows = sent(torch.tensor(numbers), device)
        images = sent(torch.tensor([row.image for row in there], dtype=torch.long), device)
        return _Reading(there, rows, images, tokens, values, share, self._memory)

    def _add_up(self) -> None:
        """What the layers have shown since the last call goes to the sum of all calls."""
        for reading in self._readings.values():
            if reading.layers:
                layers = reading.layers
                self._add(reading.there, reading.images, reading.means(), layers)

    def maps(self) -> Tensor | None:
        self._add_up()
        return super().maps()

    def _really_there(self, wanted: TokenRow | None, text: Tensor, row: int) -> TokenRow | None:
        """What to read where a call has these columns ``(t,D)`` of the row's text; None where it has no object's."""
        if wanted is None:
            return None
        if self._text is None or len(text) == self._text.shape[1]:
            numbers: Sequence[int | None] = range(len(text))
        else:
            key = (row, text.dtype)
            if key not in self._keys:
                self._keys[key] = column_keys(self._text[row].to(text.dtype))
            numbers = columns_of(column_keys(text), self._keys[key])
        at = {column: place for place, column in enumerate(numbers) if column is not None}
        columns = [[at[column] for column in own if column in at] for own in wanted.columns]
        # A text that has none of the objects at this step has been read all the same.
        return TokenRow(wanted.image, columns) if any(columns) or not any(wanted.columns) else None
