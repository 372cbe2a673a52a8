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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.grid import halved_grid
from asyndm_ext.model.text_part import Place, column_keys, columns_of


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


def token_probabilities(q: Tensor, k: Tensor, heads: int, scale: float, columns: Sequence[Sequence[int]]) -> Tensor:
    """Softmax over all keys, then per object the mean over its tokens and over heads.

    Args:
        q: ``(L, heads*d)``. k: ``(T, heads*d)``. One row of the batch, any dtype; computed in float32.

    Returns:
        ``(n, L)`` float32; NaN-free zeros for an object without columns.
    """
    queries = q.float().unflatten(-1, (heads, -1)).transpose(0, 1)
    keys = k.float().unflatten(-1, (heads, -1)).transpose(0, 1)
    with without_autocast(q.device):
        probabilities = (queries @ keys.transpose(1, 2) * scale).softmax(dim=-1).mean(dim=0)
    return mean_per_object([[probabilities[:, column] for column in own] for own in columns], len(q), q.device)


def mean_per_object(found: Sequence[Sequence[Tensor]], pixels: int, device: torch.device) -> Tensor:
    """Each object's tokens' probabilities, ``(L,)`` each -> the mean of each object's, ``(n,L)``; 0 where it has none.

    One by one rather than by a list of numbers, which a GPU would have to wait for.
    """
    nothing = torch.zeros(pixels, device=device)
    return torch.stack([torch.stack(list(own)).mean(dim=0) if own else nothing for own in found])


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
        """Averaged attention ``(B,n,h,w)``, float32 on the CPU, or None if no layer was seen on the grid."""
        if self._sum is None:
            return None
        mean = self._sum.cpu() / self._weight.clamp_min(1).unsqueeze(-1)
        return mean.view(self._images, self._objects, *self._size)

    def _add(self, wanted: TokenRow, found: Tensor, layers: int = 1) -> None:
        """The probabilities ``(n, h*w)`` of one row, the sum over so many layers."""
        if self._sum is None:
            self._sum = torch.zeros(self._images, self._objects, found.shape[1], device=found.device)
        self._sum[wanted.image] += found
        self._weight[wanted.image] += layers * torch.tensor([1.0 if len(c) else 0.0 for c in wanted.columns])


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
        self._inputs: dict[int, Place] = {}
        self._text: Tensor | None = None
        self._keys: dict[tuple[int, torch.dtype], list[bytes]] = {}

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

    def read(self, rows: Sequence[TokenRow | None]) -> None:
        super().read(rows)
        self._queries.clear()
        self._inputs.clear()
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
            if self._rows and isinstance(x, Tensor) and x.ndim == 3:
                self._inputs[number] = Place.of(x)

        return hook

    # -- what it makes of them

    def _on_query(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if self._rows and output.ndim == 3 and output.shape[1] == self._size[0] * self._size[1]:
                first = self._first_row(number, args[0])
                if first is not None:
                    self._queries[number] = first, output

        return hook

    def _first_row(self, number: int, x: Tensor) -> int | None:
        """The first of the batch's rows that the queries are of; None where it cannot be told."""
        if len(x) == len(self._rows):
            return 0
        place = self._inputs.get(number)
        return place.first_of(x) if place is not None and place.rows == len(self._rows) else None

    def _on_key(self, number: int, layer: Any) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            first, q = self._queries.pop(number, (0, None))
            if q is None or len(output) != len(q):
                return
            # Memory-efficient attention classes keep no scale; it is always this one.
            scale = getattr(layer, "scale", None) or (q.shape[-1] / layer.heads) ** -0.5
            for row, wanted in enumerate(self._rows[first : first + len(q)]):
                there = self._really_there(wanted, args[0][row], first + row) if wanted is not None else None
                if there is not None:
                    self._add(there, token_probabilities(q[row], output[row], layer.heads, scale, there.columns))

        return hook

    def _really_there(self, wanted: TokenRow, text: Tensor, row: int) -> TokenRow | None:
        """What to read where a call has these columns ``(t,D)`` of the row's text; None where it has no object's."""
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
