"""Per-token time conditioning of diffusion transformers (MMDiT of SD3 and SD3.5, Flux), by distinct timesteps.

A block projects the vector ``c = time + pooled text [+ guidance]`` to shifts, scales and gates (adaLN; Peebles and
Xie 2023) that it applies to all its tokens alike. Token by token is the same maths, but the blocks write it
as ``scale.unsqueeze(1)``, which a modulation per token does not fit into. So a block is handed a neutral one
(shift 0, scale 0, gate 1: ``x * 1 + 0`` keeps x's bits), and each token's own is applied where the modulated tokens
enter a module or where the tokens leave the module whose output is gated.

The time MLP and the projections run on the distinct timesteps only (tens of rows, not one per token), in the
call that the block makes anyway. With no table set the hooks return at once and the network computes what it
always computes.

Tokens without a pixel (text, reference images appended after the picture as FLUX.1 Kontext has them) keep the
scalar conditioning, of the host's nominal level. Tried on random MMDiT and Flux networks with two levels 125 to 150
thousandths apart, 6 to 88 % of the tokens on the slower one: the nominal, the mean and the slower level for the text
move the image by at most 0.06 of what the two levels differ (0.005 with smaller weights), the nominal one least
where the picture is on time. The text itself then stays 0.01 to 0.6 of that difference away from a run at the
nominal level, growing with the slow share; with the mean level it is like neither run (0.5 to 1.2 from both).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.patches import patch_grid
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding
from asyndm_ext.model.unet_time import UnsupportedModel


@dataclass(frozen=True)
class _Input:
    """Tokens enter ``module`` as ``x * (1 + scale) + shift``; the numbers of those two among the chunks."""

    module: nn.Module
    shift: int
    scale: int


@dataclass(frozen=True)
class _Output:
    """Tokens leave ``module`` as ``gate * x``; the number of the gate among the chunks."""

    module: nn.Module
    gate: int


@dataclass(frozen=True)
class _Modulation:
    """One adaLN: the module that takes ``c``, its linear layer, and where the chunks of that layer's output go.

    Attributes:
        with_text: whether its tokens are the text's and then the image's, or the image's only.
    """

    entry: nn.Module
    linear: nn.Module
    inputs: tuple[_Input, ...]
    outputs: tuple[_Output, ...]
    with_text: bool = False

    @property
    def chunks(self) -> int:
        return 2 * len(self.inputs) + len(self.outputs)

    @property
    def sites(self) -> int:
        return len(self.inputs) + len(self.outputs)


@dataclass(frozen=True)
class _Layout:
    time_mlp: nn.Module
    modulations: list[_Modulation]


def is_mmdit(network: Any) -> bool:
    """SD3, SD3.5: blocks of a context block and an x block."""
    return hasattr(network, "joint_blocks") and hasattr(network, "t_embedder")


def is_flux(network: Any) -> bool:
    """Flux: blocks of two streams, then of one, each with a modulation of its own (unlike Chroma)."""
    first: Any = next(iter(getattr(network, "double_blocks", [])), None)
    return hasattr(network, "time_in") and hasattr(first, "img_mod")


def _mmdit_layout(network: Any) -> _Layout:
    modulations = []
    for joint in network.joint_blocks:
        block = joint.x_block
        # The order of the chunks in pre_attention and, with a second attention of the image alone (SD3.5 medium), in
        # pre_attention_x.
        inputs = [_Input(block.attn.qkv, 0, 1), _Input(block.mlp, 3, 4)]
        outputs = [_Output(block.attn.proj, 2), _Output(block.mlp, 5)]
        if getattr(block, "x_block_self_attn", False):
            inputs.append(_Input(block.attn2.qkv, 6, 7))
            outputs.append(_Output(block.attn2.proj, 8))
        elif getattr(block, "scale_mod_only", False):
            raise UnsupportedModel(f"{type(network).__name__} modulates without shifts")
        entry = block.adaLN_modulation
        modulations.append(_Modulation(entry, entry[-1], tuple(inputs), tuple(outputs)))
    return _Layout(network.t_embedder.mlp, [*modulations, _final(network)])


def _flux_layout(network: Any) -> _Layout:
    modulations = []
    for block in network.double_blocks:
        inputs = (_Input(block.img_attn.qkv, 0, 1), _Input(block.img_mlp, 3, 4))
        outputs = (_Output(block.img_attn.proj, 2), _Output(block.img_mlp, 5))
        modulations.append(_Modulation(block.img_mod, block.img_mod.lin, inputs, outputs))
    for block in network.single_blocks:
        enters, leaves = (_Input(block.linear1, 0, 1),), (_Output(block.linear2, 2),)
        modulations.append(_Modulation(block.modulation, block.modulation.lin, enters, leaves, with_text=True))
    return _Layout(network.time_in, [*modulations, _final(network)])


def _final(network: Any) -> _Modulation:
    final = network.final_layer
    return _Modulation(final.adaLN_modulation, final.adaLN_modulation[-1], (_Input(final.linear, 0, 1),), ())


def _layout(network: Any) -> _Layout:
    if is_mmdit(network):
        return _mmdit_layout(network)
    if is_flux(network):
        return _flux_layout(network)
    raise UnsupportedModel(f"{type(network).__name__} is no diffusion transformer that AsynDM knows (SD3, SD3.5, Flux)")


class DiTTimeConditioning:
    """Hooks that give every image token its own timestep embedding while :meth:`attached` is active.

    Set with :meth:`use` around a model call; with ``table`` None the network is untouched.

    Attributes:
        table: distinct timesteps per image on the network's device, in the unit of the sinusoid (thousandths: 1000
            times the sigma of a rectified flow, also where the network itself takes the sigma, as Flux does), or None
            for the scalar path. A token takes the timestep of its patch's first pixel, see
            :mod:`asyndm_ext.model.patches`.
        rows: image index of each row of the network's batch.
        calls: how many modulations were applied token by token since the last :meth:`use`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layout = _layout(network)
        self.table: TimestepTable | None = None
        self.rows: Sequence[int] = ()
        self.calls = 0
        self._scalar: Tensor | None = None
        self._embedded: Tensor | None = None
        self._conditioning: tuple[Tensor, Tensor] | None = None
        self._first: list[int] = []
        self._chunks: dict[int, list[Tensor]] = {}
        self._sites_left: dict[int, int] = {}
        self._image_tokens = 0
        self._indices: dict[tuple[int, bool], Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[DiTTimeConditioning]:
        """Register the hooks; they are removed however the block is left."""
        handles = []
        try:
            handles.append(self._layout.time_mlp.register_forward_pre_hook(self._before_time_mlp))
            handles.append(self._layout.time_mlp.register_forward_hook(self._after_time_mlp))
            for number, modulation in enumerate(self._layout.modulations):
                handles.append(modulation.entry.register_forward_pre_hook(self._on_conditioning))
                handles.append(modulation.linear.register_forward_hook(self._on_projection(number)))
                for site in modulation.inputs:
                    handles.append(site.module.register_forward_pre_hook(self._on_input(number, site)))
                for gated in modulation.outputs:
                    handles.append(gated.module.register_forward_hook(self._on_output(number, gated)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())

    def use(self, table: TimestepTable | None, rows: Sequence[int]) -> None:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to."""
        self.table = table
        self.rows = rows
        self.calls = 0
        self._scalar = self._embedded = self._conditioning = None
        self._chunks.clear()
        self._sites_left.clear()
        self._image_tokens = 0
        self._indices.clear()

    # -- time embedding: the table's rows after the batch's own

    def _before_time_mlp(self, module: nn.Module, args: tuple) -> tuple | None:
        if self.table is None:
            return None
        scalar = args[0]
        if len(scalar) != len(self.rows):
            raise RuntimeError(f"the network ran on {len(scalar)} rows where {len(self.rows)} were expected")
        sinusoid = timestep_embedding(self.table.values.to(scalar.device), scalar.shape[-1])
        return (torch.cat([scalar, sinusoid.to(scalar.dtype)]),)

    def _after_time_mlp(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if self.table is None:
            return None
        self._scalar, self._embedded = output[: len(self.rows)], output[len(self.rows) :]
        return self._scalar

    # -- conditioning: for each batch row the scalar one, then one per timestep of its image

    def _on_conditioning(self, module: nn.Module, args: tuple) -> tuple | None:
        if self.table is None:
            return None
        c = args[0]
        if self._conditioning is None or self._conditioning[0] is not c:
            self._conditioning = (c, self._conditioning_rows(c))
        return (self._conditioning[1],)

    def _conditioning_rows(self, c: Tensor) -> Tensor:
        """``(N, D)`` -> ``(R', D)``, or with a dimension of tokens ``(N, 1, D)`` -> ``(R', 1, D)``.

        What was added to the time embedding differs per batch row and is carried over.
        """
        assert self.table is not None and self._scalar is not None and self._embedded is not None
        vectors = c.reshape(len(self.rows), -1).float()
        added = vectors - self._scalar.float()
        offsets = self.table.offsets()
        parts: list[Tensor] = []
        self._first = []
        at = 0
        for row, image in enumerate(self.rows):
            own = self._embedded[offsets[image] : offsets[image] + self.table.counts[image]]
            parts += [vectors[row : row + 1], own.float() + added[row]]
            self._first.append(at)
            at += 1 + len(own)
        return torch.cat(parts).to(c.dtype).view(-1, *c.shape[1:])

    def _on_projection(self, number: int) -> Callable:
        modulation = self._layout.modulations[number]
        scales = {site.scale for site in modulation.inputs}
        gates = [site.gate for site in modulation.outputs]

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None:
                return None
            width = output.shape[-1]
            chunks = output.reshape(-1, width).chunk(modulation.chunks, dim=-1)
            self._chunks[number] = [1 + chunk if i in scales else chunk for i, chunk in enumerate(chunks)]
            self._sites_left[number] = modulation.sites
            neutral = output.new_zeros(len(self.rows), *output.shape[1:-1], modulation.chunks, chunks[0].shape[-1])
            neutral[..., gates, :] = 1
            return neutral.flatten(-2)

        return hook

    # -- tokens

    def _on_input(self, number: int, site: _Input) -> Callable:
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            if number not in self._sites_left:
                return None
            x = args[0]
            scale, shift = self._per_token(number, site.scale, x), self._per_token(number, site.shift, x)
            self._done(number)
            return (x * scale + shift, *args[1:])

        return hook

    def _on_output(self, number: int, site: _Output) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if number not in self._sites_left:
                return None
            gate = self._per_token(number, site.gate, output)
            self._done(number)
            return output * gate

        return hook

    def _per_token(self, number: int, chunk: int, tokens: Tensor) -> Tensor:
        """One chunk of a modulation for each token of ``(N, L, D)``: the same shape."""
        rows = self._chunks[number][chunk]
        index = self._index(tokens.shape[1], self._layout.modulations[number].with_text)
        return rows.index_select(0, index.to(rows.device)).view(*tokens.shape[:2], -1)

    def _index(self, tokens: int, with_text: bool) -> Tensor:
        """Row of the projected conditioning for each token, ``(N*L,)``; built once per kind of stream and call."""
        if (tokens, with_text) not in self._indices:
            assert self.table is not None
            if not with_text:
                self._image_tokens = tokens
            text = tokens - self._image_tokens
            own = self.table.index_at(*patch_grid(*self.table.index.shape[-2:])).flatten(1)
            references = tokens - text - own.shape[1]
            if references < 0:
                raise RuntimeError(f"the network has {tokens - text} image tokens where the map has {own.shape[1]}")
            index = torch.nn.functional.pad(own[list(self.rows)] + 1, (text, references))
            first = torch.as_tensor(self._first, device=index.device)
            self._indices[(tokens, with_text)] = (index + first.view(-1, 1)).flatten()
        return self._indices[(tokens, with_text)]

    def _done(self, number: int) -> None:
        self._sites_left[number] -= 1
        if self._sites_left[number]:
            return
        del self._sites_left[number], self._chunks[number]
        self.calls += 1
        if number == len(self._layout.modulations) - 1 and self._sites_left:
            raise RuntimeError("the network left out layers whose modulation AsynDM had taken over")
