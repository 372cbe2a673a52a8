"""Per-token time conditioning of diffusion transformers (SD3, SD3.5, Flux, Chroma), by distinct timesteps.

A block modulates its tokens by shifts, scales and gates (adaLN; Peebles and Xie 2023), which a linear layer makes of
the vector ``c = time + pooled text [+ guidance]``; in Chroma one small network makes those of all blocks. Time MLP,
linear layers and that network run on the distinct timesteps only (tens of rows, not one per token), in the call that
is made anyway; :mod:`asyndm_ext.model.token_modulation` gives each token its row. With no table set the hooks return
at once and the network computes what it always computes.

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

from asyndm_ext.model.patches import PATCH
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding
from asyndm_ext.model.token_modulation import Input, Modulation, Output, TokenModulations
from asyndm_ext.model.unet_time import UnsupportedModel


def is_mmdit(network: Any) -> bool:
    """SD3, SD3.5: blocks of a context block and an x block."""
    return hasattr(network, "joint_blocks") and hasattr(network, "t_embedder")


def is_flux(network: Any) -> bool:
    """Flux: blocks of two streams, then of one, each with a modulation of its own."""
    return hasattr(network, "time_in") and hasattr(_first_double_block(network), "img_mod")


def is_chroma(network: Any) -> bool:
    """Chroma: Flux's blocks, with all modulations made at one place."""
    return hasattr(network, "distilled_guidance_layer") and hasattr(_first_double_block(network), "img_attn")


def _first_double_block(network: Any) -> Any:
    return next(iter(getattr(network, "double_blocks", [])), None)


@dataclass(frozen=True)
class _AdaLN:
    """The module that takes ``c``, its linear layer, and where the chunks of that layer's output go."""

    entry: nn.Module
    linear: nn.Module
    modulation: Modulation


def _mmdit_adaln(network: Any) -> Iterator[_AdaLN]:
    for joint in network.joint_blocks:
        block = joint.x_block
        # The order of the chunks in pre_attention and, with a second attention of the image alone (SD3.5 medium), in
        # pre_attention_x.
        inputs = [Input(block.attn.qkv, 0, 1), Input(block.mlp, 3, 4)]
        outputs = [Output(block.attn.proj, 2), Output(block.mlp, 5)]
        if getattr(block, "x_block_self_attn", False):
            inputs.append(Input(block.attn2.qkv, 6, 7))
            outputs.append(Output(block.attn2.proj, 8))
        elif getattr(block, "scale_mod_only", False):
            raise UnsupportedModel(f"{type(network).__name__} modulates without shifts")
        entry = block.adaLN_modulation
        yield _AdaLN(entry, entry[-1], Modulation(tuple(inputs), tuple(outputs)))


def _flux_adaln(network: Any) -> Iterator[_AdaLN]:
    for block, modulation in zip(network.double_blocks, _double(network), strict=True):
        yield _AdaLN(block.img_mod, block.img_mod.lin, modulation)
    for block, modulation in zip(network.single_blocks, _single(network), strict=True):
        yield _AdaLN(block.modulation, block.modulation.lin, modulation)


def _double(network: Any) -> Iterator[Modulation]:
    for block in network.double_blocks:
        inputs = (Input(block.img_attn.qkv, 0, 1), Input(block.img_mlp, 3, 4))
        yield Modulation(inputs, (Output(block.img_attn.proj, 2), Output(block.img_mlp, 5)))


def _single(network: Any) -> Iterator[Modulation]:
    for block in network.single_blocks:
        yield Modulation((Input(block.linear1, 0, 1),), (Output(block.linear2, 2),), with_text=True)


def _final(network: Any) -> Modulation:
    return Modulation((Input(network.final_layer.linear, 0, 1),))


class _TimeConditioning:
    """What both kinds share."""

    patch = PATCH
    by_sigma = True

    def __init__(self, modulations: Sequence[Modulation]) -> None:
        self.table: TimestepTable | None = None
        self.rows: Sequence[int] = ()
        self._tokens = TokenModulations(modulations)

    @property
    def calls(self) -> int:
        """How many modulations were applied token by token since the last :meth:`use`."""
        return self._tokens.calls

    def use(self, table: TimestepTable | None, rows: Sequence[int]) -> None:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to."""
        self.table, self.rows = table, rows
        self._tokens.use(table, rows)

    @contextmanager
    def _hooked(self, register: Callable[[], Iterator[Any]]) -> Iterator[None]:
        handles: list[Any] = []
        try:
            with self._tokens.attached():
                for handle in register():
                    handles.append(handle)
                yield
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())

    def _sinusoid(self, batch: Tensor, channels: int) -> Tensor:
        """Of the table's timesteps ``(R, channels)``, as the network's own input ``(N, ...)`` is."""
        assert self.table is not None
        if len(batch) != len(self.rows):
            raise RuntimeError(f"the network ran on {len(batch)} rows where {len(self.rows)} were expected")
        return timestep_embedding(self.table.values.to(batch.device), channels).to(batch.dtype)


class DiTTimeConditioning(_TimeConditioning):
    """Hooks on an MMDiT or Flux that give every image token its own timestep while :meth:`attached` is active.

    Set with :meth:`use` around a model call; with ``table`` None the network is untouched.

    Attributes:
        table: distinct timesteps per image on the network's device, in the unit of the sinusoid (thousandths: 1000
            times the sigma of a rectified flow, also where the network itself takes the sigma, as Flux does), or None
            for the scalar path. A token takes the timestep of its patch's first pixel, see
            :mod:`asyndm_ext.model.patches`.
        rows: image index of each row of the network's batch.
    """

    def __init__(self, network: Any) -> None:
        if not (is_mmdit(network) or is_flux(network)):
            raise UnsupportedModel(f"{type(network).__name__} is no transformer that AsynDM knows (SD3, SD3.5, Flux)")
        adaln = list(_mmdit_adaln(network) if is_mmdit(network) else _flux_adaln(network))
        last = network.final_layer.adaLN_modulation
        self._adaln = [*adaln, _AdaLN(last, last[-1], _final(network))]
        super().__init__([one.modulation for one in self._adaln])
        self._time_mlp: nn.Module = network.t_embedder.mlp if is_mmdit(network) else network.time_in
        self._scalar: Tensor | None = None
        self._embedded: Tensor | None = None
        self._conditioning: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def attached(self) -> Iterator[DiTTimeConditioning]:
        """Register the hooks; they are removed however the block is left."""
        with self._hooked(self._register):
            yield self

    def _register(self) -> Iterator[Any]:
        yield self._time_mlp.register_forward_pre_hook(self._before_time_mlp)
        yield self._time_mlp.register_forward_hook(self._after_time_mlp)
        for number, one in enumerate(self._adaln):
            yield one.entry.register_forward_pre_hook(self._on_conditioning)
            yield one.linear.register_forward_hook(self._on_projection(number))

    def use(self, table: TimestepTable | None, rows: Sequence[int]) -> None:
        super().use(table, rows)
        self._scalar = self._embedded = self._conditioning = None

    # -- time embedding: the table's rows after the batch's own

    def _before_time_mlp(self, module: nn.Module, args: tuple) -> tuple | None:
        if self.table is None:
            return None
        return (torch.cat([args[0], self._sinusoid(args[0], args[0].shape[-1])]),)

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
        """``(N, D)`` -> ``(R, D)``, or with a dimension of tokens ``(N, 1, D)`` -> ``(R, 1, D)``.

        What was added to the time embedding differs per batch row and is carried over.
        """
        assert self.table is not None and self._scalar is not None and self._embedded is not None
        vectors = c.reshape(len(self.rows), -1).float()
        added = vectors - self._scalar.float()
        offsets = self.table.offsets()
        parts: list[Tensor] = []
        scalar_rows, at = [], 0
        for row, image in enumerate(self.rows):
            own = self._embedded[offsets[image] : offsets[image] + self.table.counts[image]]
            parts += [vectors[row : row + 1], own.float() + added[row]]
            scalar_rows.append(at)
            at += 1 + len(own)
        self._tokens.place(scalar_rows, [row + 1 for row in scalar_rows])
        return torch.cat(parts).to(c.dtype).view(-1, *c.shape[1:])

    def _on_projection(self, number: int) -> Callable:
        modulation = self._adaln[number].modulation

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None:
                return None
            chunks = output.unflatten(-1, (modulation.chunks, -1))
            self._tokens.give(number, chunks.flatten(0, -3).unbind(dim=1))
            return modulation.neutral(chunks[: len(self.rows)]).flatten(-2)

        return hook


class ChromaTimeConditioning(_TimeConditioning):
    """The same for Chroma, whose ``distilled_guidance_layer`` makes the vectors of all modulations.

    It takes for every vector 16 channels of the timestep's sinusoid, then guidance and the vector's number, and knows
    nothing of the text; so the timesteps of an image are the same in all its rows.
    """

    _TIME_CHANNELS = 16

    def __init__(self, network: Any) -> None:
        if not is_chroma(network):
            raise UnsupportedModel(f"{type(network).__name__} is not Chroma")
        single, double = list(_single(network)), list(_double(network))
        super().__init__([*double, *single, _final(network)])
        self._layer: nn.Module = network.distilled_guidance_layer
        # The single blocks' vectors come first, then the double blocks' for the image and theirs for the text. The last
        # two of all are the end's: a network that was cut short may still make as many vectors as the whole one.
        at = 3 * len(single)
        first = [at + 6 * i for i in range(len(double))]
        self._first_vectors = [*first, *(3 * i for i in range(len(single))), -2]

    @contextmanager
    def attached(self) -> Iterator[ChromaTimeConditioning]:
        """Register the hooks; they are removed however the block is left."""
        with self._hooked(self._register):
            yield self

    def _register(self) -> Iterator[Any]:
        yield self._layer.register_forward_pre_hook(self._before_layer)
        yield self._layer.register_forward_hook(self._after_layer)

    def _before_layer(self, module: nn.Module, args: tuple) -> tuple | None:
        """``(N, vectors, 64)`` -> ``(N + R, vectors, 64)``."""
        if self.table is None:
            return None
        batch = args[0]
        sinusoid = self._sinusoid(batch, self._TIME_CHANNELS)
        own = batch[:1].repeat(len(sinusoid), 1, 1)
        own[..., : self._TIME_CHANNELS] = sinusoid.unsqueeze(1)
        return (torch.cat([batch, own]),)

    def _after_layer(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if self.table is None:
            return None
        rows, offsets = len(self.rows), self.table.offsets()
        self._tokens.place(range(rows), [rows + offsets[image] for image in self.rows])
        scalar = output[:rows].clone()
        for number, modulation in enumerate(self._tokens.modulations):
            first = self._first_vectors[number] % output.shape[1]
            vectors = slice(first, first + modulation.chunks)
            self._tokens.give(number, output[:, vectors].unbind(dim=1))
            scalar[:, vectors] = modulation.neutral(scalar[:, vectors])
        return scalar
