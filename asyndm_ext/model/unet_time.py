"""Per-pixel time conditioning of a UNet (ldm, sgm and diffusers layouts), by distinct timesteps.

A UNet adds a projection of the time embedding to the feature map of every ResBlock: pixel-wise maths, so
each pixel can have its own. The embedding MLP runs once on the distinct timesteps (tens of rows, not
H*W), each block projects those rows and gathers them to its resolution. With no table set the hooks
return at once and the network computes what it always computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.compiling import is_compiling
from asyndm_ext.machine.transfer import sent, sent_together
from asyndm_ext.model.pieces import add_rows, fits, in_place, measure_cache, rows_of_pixels
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding
from asyndm_ext.region.grid import halved_grid

_LEVELS = 4  # of Stable Diffusion's UNets


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


def _resnet_blocks(unet: Any) -> list[Any]:
    return [m for m in unet.modules() if getattr(m, "time_emb_proj", None) is not None]


def _diffusers_layout(unet: Any) -> _Layout:
    found = _resnet_blocks(unet)
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
    elif hasattr(unet, "time_embedding") and hasattr(unet, "time_proj") and _resnet_blocks(unet):
        layout = _diffusers_layout(unet)
    else:
        raise UnsupportedModel(f"{type(unet).__name__} is a network that AsynDM does not know")
    if not layout.blocks:
        raise UnsupportedModel(f"{type(unet).__name__} has no ResBlocks that take a time embedding")
    return layout


@dataclass
class _Tables:
    """What the hooks need of a table of timesteps, beside the network.

    Attributes:
        source: the table, the image of each row, and whether each of the batch's rows has rows of its own or those of
            its image.
        sinusoid: of the distinct timesteps ``(R, channels)``, float32.
        pick, owner: with rows of their own, which timestep and which of the batch's rows each is of ``(R',)``.
        rows: the table's cells for each of the batch's rows, as rows of all that is projected.
        index: by size ``(h,w)``, the row of each pixel ``(N*h*w,)``.
    """

    source: tuple[TimestepTable, tuple[int, ...], bool]
    sinusoid: Tensor
    pick: Tensor
    owner: Tensor
    rows: TimestepTable
    index: dict[tuple[int, int], Tensor] = field(default_factory=dict)


def _index_at(rows: TimestepTable, h: int, w: int) -> Tensor:
    """The row of each pixel of feature maps of this size, ``(N*h*w,)``."""
    return rows.index_at(h, w).flatten()


class UNetTimeConditioning:
    """Hooks that give every pixel its own timestep embedding while :meth:`attached` is active.

    Set :attr:`table` and :attr:`rows` around a model call; with ``table`` None the network is untouched. What the
    network needs is sent to it then, in one copy, so that nothing in its layers waits.

    Attributes:
        table: distinct timesteps per image, or None for the scalar path.
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
        self._tables: _Tables | None = None
        self._embedded: tuple[TimestepTable, Tensor] | None = None
        self._nominal: Tensor | None = None
        self._projected_from: tuple[Tensor, Tensor] | None = None
        self._inside = False
        self._features: dict[int, Tensor] = {}
        # What the calls so far were like, and so the next one: whether something is added to the time embedding, and
        # how large the feature maps of this latent are (the keys).
        self._per_row = hasattr(unet, "label_emb")
        self._latent = (0, 0)
        self._asked: dict[tuple[int, int], bool] = {}

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
                    handles.append(block.projection.register_forward_pre_hook(self._before_projection))
                    handles.append(block.projection.register_forward_hook(self._on_projection(number)))
                else:
                    handles.append(block.projection.register_forward_hook(self._on_projection_2d(block)))
                    handles.append(block.conv.register_forward_hook(self._on_conv(block)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())
            self._embedded = self._tables = None

    def use(self, table: TimestepTable | None, rows: Sequence[int], along: Sequence[Tensor] = ()) -> list[Tensor]:
        """See :class:`asyndm_ext.model.network.TimeConditioning`."""
        self.table = table
        self.rows = rows
        self.calls = 0
        self._nominal = None
        self._projected_from = None
        self._features.clear()
        if table is None:
            return list(along)
        measure_cache()
        return self._prepare(table, along)

    def _prepare(self, table: TimestepTable, along: Sequence[Tensor] = ()) -> list[Tensor]:
        source, known = (table, tuple(self.rows), self._per_row), self._tables
        if known is not None and known.source[0] is table and known.source[1:] == source[1:]:
            return sent_together(along, table.device)
        sinusoid = timestep_embedding(table.values, self._unet_layout.channels)
        parts = [*along, sinusoid, *self._own_rows(table)]
        cells, sizes = self._rows_of_cells(table), list[tuple[int, int]]()
        if table.device.type != "cpu":  # there it is made when it is asked for
            sizes = self._sizes(table)
            parts += [_index_at(cells, *size) for size in sizes]
        there = sent_together(parts, table.device)
        sinusoid, pick, owner, *indices = there[len(along) :]
        self._tables = _Tables(source, sinusoid, pick, owner, cells, dict(zip(sizes, indices, strict=True)))
        return there[: len(along)]

    def _sizes(self, table: TimestepTable) -> list[tuple[int, int]]:
        """Of the feature maps: as in the call before; before there is one, what strided convolutions make of it."""
        latent = table.size
        if self._latent != latent:
            self._latent, self._asked = latent, {}
        return sorted(self._asked) or [halved_grid(*latent, times) for times in range(_LEVELS)]

    # -- time embedding

    def _on_time_mlp(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.table is None or self._inside:
            return
        assert self._tables is not None
        self._nominal = output
        if self._embedded is None or self._embedded[0] is not self.table:
            # Here and not before: with --lowvram the MLP is on the device only now.
            self._embedded = (self.table, self._quietly(module, self._tables.sinusoid.to(args[0].dtype)))

    def _quietly(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        self._inside = True
        try:
            return module(x)
        finally:
            self._inside = False

    def _embedding_rows(self, emb: Tensor) -> Tensor:
        """The embeddings to project, ``(R', D)``.

        What others added to the embedding (SDXL's label embedding) differs per batch row, so it is carried
        over as the difference from the scalar embedding; where nothing was added, rows of one image share.
        """
        if self._projected_from is None or self._projected_from[0] is not emb:  # the same in every block
            self._projected_from = (emb, self._rows_of(emb))
        return self._projected_from[1]

    def _rows_of(self, emb: Tensor) -> Tensor:
        assert self.table is not None and self._embedded is not None and self._nominal is not None
        added = not _same(emb, self._nominal)
        if added != self._per_row:
            self._per_row = added
            self._prepare(self.table)
        table_rows = self._embedded[1]
        if not added:
            return table_rows
        assert self._tables is not None
        difference = emb.float() - self._nominal.float()
        own = table_rows.float().index_select(0, self._tables.pick) + difference.index_select(0, self._tables.owner)
        return own.to(emb.dtype)

    # -- where each pixel finds its row; on the CPU

    def _own_rows(self, table: TimestepTable) -> tuple[Tensor, Tensor]:
        """Which timestep each row is of, and which of the batch's rows; empty where the images' rows are shared."""
        if not self._per_row:
            return torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int32)
        offsets, counts = table.offsets(), [table.counts[image] for image in self.rows]
        pick = [range(offsets[image], offsets[image] + table.counts[image]) for image in self.rows]
        return (
            torch.tensor([number for own in pick for number in own], dtype=torch.int32),
            torch.tensor([row for row, count in enumerate(counts) for _ in range(count)], dtype=torch.int32),
        )

    def _rows_of_cells(self, table: TimestepTable) -> TimestepTable:
        offsets, rows = table.offsets(), list(self.rows)
        if self._per_row:
            return table.moved(rows, [sum(table.counts[image] for image in rows[:row]) for row in range(len(rows))])
        return table.moved(rows, [offsets[image] for image in rows])

    def _gather_index(self, h: int, w: int) -> Tensor:
        """The same beside the network."""
        assert self.table is not None and self._tables is not None
        self._asked[(h, w)] = True
        index = self._tables.index
        if (h, w) not in index:
            index[(h, w)] = sent(_index_at(self._tables.rows, h, w), self.table.device)
        return index[(h, w)]

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

    def _before_projection(self, module: nn.Module, args: tuple) -> tuple | None:
        """The rows go through in the place of the batch's own embedding."""
        return (self._embedding_rows(args[0]), *args[1:]) if self._expects(args[0]) else None

    def _on_projection(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None or self._nominal is None:
                return None
            features = self._features.pop(number)
            self.calls += 1
            index = self._gather_index(*features.shape[-2:])
            if fits(features.numel() * features.element_size(), features.device) or not in_place(features, output):
                return rows_of_pixels(index, output, features)
            add_rows(features, index, output)
            return output.new_zeros(len(self.rows), output.shape[-1])

        return hook

    # -- diffusers: the block makes its projection 4-D itself, so the map is added one line earlier

    def _on_conv(self, block: _Block) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None or self._nominal is None:
                return None
            rows = self._embedding_rows(self._nominal)
            assert block.activation is not None
            self.calls += 1
            projected = self._quietly(block.projection, block.activation(rows))
            return add_rows(output, self._gather_index(*output.shape[-2:]), projected)

        return hook

    def _on_projection_2d(self, block: _Block) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            return torch.zeros_like(output) if self._expects(args[0]) else None

        return hook


def _same(emb: Tensor, nominal: Tensor) -> bool:
    """Whether nothing was added; hosts may hand on another tensor over the same numbers."""
    if emb is nominal:
        return True
    if is_compiling():  # where memory lies is not known there; what is taken for other numbers is worked out anew
        return False
    return emb.shape == nominal.shape and emb.data_ptr() == nominal.data_ptr() != 0
