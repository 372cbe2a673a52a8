"""Per-pixel time conditioning of a UNet (ldm, sgm and diffusers layouts), by distinct timesteps.

A UNet adds a projection of the time embedding to the feature map of every ResBlock: pixel-wise maths, so
each pixel can have its own. The embedding MLP runs once on the distinct timesteps (tens of rows, not
H*W), each block projects those rows and gathers them to its resolution. With no table set the hooks
return at once and the network computes what it always computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.pieces import add_rows, in_place, picked_rows
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding


@dataclass(frozen=True)
class _Block:
    """A ResBlock's parts: the convolution before the time embedding is added, and the embedding's projection."""

    conv: nn.Module
    projection: nn.Module
    activation: Callable[[Tensor], Tensor] | None
    adds_4d: bool


@dataclass(frozen=True)
class _Layout:
    time_mlp: nn.Module
    channels: int
    blocks: list[_Block]


class UnsupportedModel(ValueError):
    """The network is not one whose time conditioning is understood; the message says what it is."""


def _ldm_layout(unet: Any) -> _Layout:
    blocks = [
        # The block appends dimensions to the projection until it has as many as the feature map: 4-D passes.
        _Block(conv=m.in_layers[-1], projection=m.emb_layers, activation=None, adds_4d=True)
        for m in unet.modules()
        if hasattr(m, "emb_layers") and hasattr(m, "in_layers")
    ]
    if any(getattr(m, "use_scale_shift_norm", False) for m in unet.modules()):
        raise UnsupportedModel(f"{type(unet).__name__} uses scale-shift normalisation in its ResBlocks")
    return _Layout(unet.time_embed, _first_linear(unet.time_embed).in_features, blocks)


def _diffusers_layout(unet: Any) -> _Layout:
    found = [m for m in unet.modules() if getattr(m, "time_emb_proj", None) is not None]
    for m in found:
        if getattr(m, "time_embedding_norm", "default") != "default":
            raise UnsupportedModel(f"{type(unet).__name__} uses {m.time_embedding_norm} in its ResnetBlocks")
    # The hooks see the embedding behind an activation, where what was added to it cannot be told apart any more.
    added = [n for n in ("class_embedding", "add_embedding", "time_embed_act") if getattr(unet, n, None) is not None]
    if added:
        raise UnsupportedModel(f"{type(unet).__name__} has a {added[0]} on top of its time embedding")
    blocks = [_Block(m.conv1, m.time_emb_proj, m.nonlinearity, adds_4d=False) for m in found]
    projection = unet.time_proj
    if not projection.flip_sin_to_cos or projection.downscale_freq_shift != 0:
        raise UnsupportedModel("the sinusoidal embedding is not the one of Stable Diffusion")
    return _Layout(unet.time_embedding, projection.num_channels, blocks)


def _first_linear(module: Any) -> Any:
    for m in module.modules():
        if hasattr(m, "in_features"):
            return m
    raise UnsupportedModel(f"no linear layer in {type(module).__name__}")


def _layout(unet: Any) -> _Layout:
    if hasattr(unet, "time_embed"):
        layout = _ldm_layout(unet)
    elif hasattr(unet, "time_embedding") and hasattr(unet, "time_proj"):
        layout = _diffusers_layout(unet)
    else:
        raise UnsupportedModel(f"{type(unet).__name__} has no time embedding that AsynDM knows (SD1, SD2, SDXL UNets)")
    if not layout.blocks:
        raise UnsupportedModel(f"{type(unet).__name__} has no ResBlocks that take a time embedding")
    return layout


class UNetTimeConditioning:
    """Hooks that give every pixel its own timestep embedding while :meth:`attached` is active.

    Set :attr:`table` and :attr:`rows` around a model call; with ``table`` None the network is untouched.

    Attributes:
        table: distinct timesteps per image, on the network's device, or None for the scalar path.
        rows: image index of each row of the network's batch.
        calls: how often blocks were conditioned per pixel since the last :meth:`use`.
    """

    patch = 1
    by_sigma = False

    def __init__(self, unet: nn.Module) -> None:
        self._unet_layout = _layout(unet)
        self.table: TimestepTable | None = None
        self.rows: Sequence[int] = ()
        self.calls = 0
        self._embedded: tuple[TimestepTable, Tensor] | None = None
        self._nominal: Tensor | None = None
        self._projected_from: tuple[Tensor, Tensor, list[int]] | None = None
        self._inside = False
        self._gathers: dict[tuple[int, int], Tensor] = {}
        self._features: dict[int, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[UNetTimeConditioning]:
        """Register the hooks; they are removed however the block is left."""
        layout = self._unet_layout
        handles = []
        try:
            handles.append(layout.time_mlp.register_forward_hook(self._on_time_mlp))
            for number, block in enumerate(layout.blocks):
                if block.adds_4d:
                    handles.append(block.conv.register_forward_hook(self._remember(number)))
                    handles.append(block.projection.register_forward_hook(self._on_projection(number)))
                else:
                    handles.append(block.projection.register_forward_hook(self._on_projection_2d(block)))
                    handles.append(block.conv.register_forward_hook(self._on_conv(block)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())
            self._embedded = None

    def use(self, table: TimestepTable | None, rows: Sequence[int]) -> None:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to."""
        self.table = table
        self.rows = rows
        self.calls = 0
        self._nominal = None
        self._projected_from = None
        self._gathers.clear()
        self._features.clear()

    # -- time embedding

    def _on_time_mlp(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.table is None or self._inside:
            return
        self._nominal = output
        if self._embedded is None or self._embedded[0] is not self.table:
            # Here and not in a block: with --lowvram the MLP is on the device only now.
            sinusoid = timestep_embedding(self.table.values.to(args[0].device), self._unet_layout.channels)
            self._embedded = (self.table, self._quietly(module, sinusoid.to(args[0].dtype)))

    def _quietly(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        self._inside = True
        try:
            return module(x)
        finally:
            self._inside = False

    def _embedding_rows(self, emb: Tensor) -> tuple[Tensor, list[int]]:
        """The embeddings to project, ``(R', D)``, and the first of them for each batch row.

        What others added to the embedding (SDXL's label embedding) differs per batch row, so it is carried
        over as the difference from the scalar embedding; where nothing was added, rows of one image share.
        """
        if self._projected_from is None or self._projected_from[0] is not emb:  # the same in every block
            self._projected_from = (emb, *self._rows_of(emb))
        return self._projected_from[1:]

    def _rows_of(self, emb: Tensor) -> tuple[Tensor, list[int]]:
        assert self.table is not None and self._embedded is not None and self._nominal is not None
        table_rows = self._embedded[1]
        offsets = self.table.offsets()
        nominal = self._nominal
        if emb.data_ptr() == nominal.data_ptr() and emb.shape == nominal.shape:
            return table_rows, [offsets[image] for image in self.rows]
        added = emb.float() - nominal.float()
        parts, first, at = [], [], 0
        for row, image in enumerate(self.rows):
            own = table_rows[offsets[image] : offsets[image] + self.table.counts[image]]
            parts.append(own.float() + added[row])
            first.append(at)
            at += len(own)
        return torch.cat(parts).to(emb.dtype), first

    def _gather_index(self, h: int, w: int, first: list[int]) -> Tensor:
        """Row of the projected table for each pixel, ``(N,h*w)``; built once per resolution and model call."""
        if (h, w) not in self._gathers:
            assert self.table is not None
            index = self.table.index_at(h, w)
            rows = torch.as_tensor(list(self.rows), device=index.device)
            start = torch.as_tensor(first, device=index.device)
            self._gathers[(h, w)] = (index[rows] + start.view(-1, 1, 1)).flatten(1)
        return self._gathers[(h, w)]

    def _expects(self, emb: Tensor) -> bool:
        """Whether this call is the one a map was set for (a control net's own blocks, say, never are)."""
        if self.table is None or self._inside or self._nominal is None:
            return False
        if len(emb) != len(self.rows):
            raise RuntimeError(f"the network ran on {len(emb)} rows where {len(self.rows)} were expected")
        return True

    # -- ldm and sgm: the block has made its features by then, and adds a projection of any shape that fits

    def _remember(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if self.table is not None:
                self._features[number] = output

        return hook

    def _on_projection(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if not self._expects(args[0]):
                return None
            features = self._features.pop(number)
            rows, first = self._embedding_rows(args[0])
            self.calls += 1
            projected = self._quietly(module, rows)
            h, w = features.shape[-2:]
            index = self._gather_index(h, w, first).to(projected.device)
            if not in_place(features, projected):
                return picked_rows(index, projected, (h, w))
            add_rows(features, index, projected)
            return torch.zeros_like(output)

        return hook

    # -- diffusers: the block makes its projection 4-D itself, so the map is added one line earlier

    def _on_conv(self, block: _Block) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None or self._nominal is None:
                return None
            h, w = output.shape[-2:]
            rows, first = self._embedding_rows(self._nominal)
            assert block.activation is not None
            self.calls += 1
            projected = self._quietly(block.projection, block.activation(rows))
            return add_rows(output, self._gather_index(h, w, first).to(projected.device), projected)

        return hook

    def _on_projection_2d(self, block: _Block) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            return torch.zeros_like(output) if self._expects(args[0]) else None

        return hook
