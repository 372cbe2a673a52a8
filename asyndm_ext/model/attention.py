"""Cross-attention probabilities of chosen tokens, without touching the host's attention.

The projections ``to_q`` and ``to_k`` of every cross-attention are called by all of the WebUI's attention
optimizations (and carry LoRA and hypernetworks), so their outputs are the exact queries and keys whatever
runs afterwards. Probabilities are computed again from those, for the layers at a quarter of the
latent's side (or another, which a model can name), for the conditional rows and for the objects' columns only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.costs import works_slowly
from asyndm_ext.machine.transfer import sent, sent_together
from asyndm_ext.model.cross_probabilities import VALUE, LeftAlone, Reading, memory_for
from asyndm_ext.model.text_part import Place, column_keys, columns_of
from asyndm_ext.region.grid import halved_grid

_KEPT = 16  # readings


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


@dataclass(frozen=True)
class _Rows:
    """The rows of a call that are read.

    Attributes:
        there: what of them, as it is in this call's text. images: those that they belong to ``(W,)``.
        layers: what these have shown.
    """

    there: list[TokenRow]
    images: Tensor
    layers: Reading


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
        self._memory, self._left = memory_for(unet), LeftAlone()
        self._text: Tensor | None = None
        self._keys: dict[tuple[int, torch.dtype], list[bytes]] = {}
        self._told: tuple = ()
        self._readings: dict[tuple, _Rows] = {}

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
            self._add_up()
        finally:
            for handle in handles:
                handle.remove()
            self._readings.clear()
            self.read(())
            self._left = LeftAlone()

    def begin(self, latent_size: tuple[int, int]) -> None:
        super().begin(latent_size)
        for reading in self._readings.values():
            reading.layers.forget()

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
                reading.layers.take(q, output, layer.heads, scale)

        return hook

    def _reading(self, text: Tensor, first: int, q: Tensor, heads: int) -> _Rows:
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
    ) -> _Rows:
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
        return _Rows(there, images, Reading(rows, tokens, values, share, self._memory, self._left))

    def _add_up(self) -> None:
        """What the layers have shown since the last call goes to the sum of all calls."""
        for reading in self._readings.values():
            if reading.layers.number:
                number = reading.layers.number
                self._add(reading.there, reading.images, reading.layers.means(), number)

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
