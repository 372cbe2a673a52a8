"""Shift, scale and gate of every image token on its own, in blocks that are written for one of each per image.

Blocks of diffusion transformers modulate as ``x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)``, which a modulation
per token does not fit into. So a block is handed a neutral one (shift 0, scale 0, gate 1: ``x * 1 + 0`` keeps x's
bits), and each token's own is applied where the modulated tokens enter a module, or where the tokens leave the module
whose output is gated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asyndm_ext.model.patches import patch_grid
from asyndm_ext.model.pieces import scale_shift
from asyndm_ext.model.timesteps import TimestepTable


@dataclass(frozen=True)
class Input:
    """Tokens enter ``module`` as ``x * (1 + scale) + shift``; the numbers of those two among the chunks."""

    module: nn.Module
    shift: int
    scale: int


@dataclass(frozen=True)
class Output:
    """Tokens leave ``module`` as ``gate * x``; the number of the gate among the chunks."""

    module: nn.Module
    gate: int


@dataclass(frozen=True)
class Modulation:
    """Where the chunks of one modulation go.

    Attributes:
        with_text: whether its tokens are the text's and then the image's, or the image's only.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...] = ()
    with_text: bool = False

    @property
    def chunks(self) -> int:
        """How many vectors it has: two per input, one per output."""
        return 2 * len(self.inputs) + len(self.outputs)

    @property
    def gates(self) -> list[int]:
        """Which of the chunks are gates."""
        return [site.gate for site in self.outputs]

    def neutral(self, like: Tensor) -> Tensor:
        """A modulation that changes nothing, ``(..., chunks, D)`` as ``like``."""
        chunks = torch.zeros_like(like)
        chunks[..., self.gates, :] = 1
        return chunks


class TokenModulations:
    """Applies modulations token by token while :meth:`attached` is active and rows have been given.

    A modulation's chunks are tables of rows ``(R, D)``; which row a token takes is the same in all modulations.

    Args:
        modulations: of a network, in the order in which it gets to them; the last one at the very end.

    Attributes:
        calls: how many modulations were applied since the last :meth:`use`.
    """

    def __init__(self, modulations: Sequence[Modulation]) -> None:
        self.modulations = list(modulations)
        self.calls = 0
        self._table: TimestepTable | None = None
        self._rows: Sequence[int] = ()
        self._scalar_rows: Sequence[int] = ()
        self._first_rows: Sequence[int] = ()
        self._chunks: dict[int, Sequence[Tensor]] = {}
        self._sites_left: dict[int, int] = {}
        self._image_tokens = 0
        self._indices: dict[tuple[int, bool], Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[TokenModulations]:
        """Register the hooks; they are removed however the block is left."""
        handles = []
        try:
            for number, modulation in enumerate(self.modulations):
                for entered in modulation.inputs:
                    handles.append(entered.module.register_forward_pre_hook(self._on_input(number, entered)))
                for left in modulation.outputs:
                    handles.append(left.module.register_forward_hook(self._on_output(number, left)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())

    def use(self, table: TimestepTable | None, rows: Sequence[int]) -> None:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to."""
        self._table, self._rows = table, rows
        self.calls = 0
        self._chunks.clear()
        self._sites_left.clear()
        self._image_tokens = 0
        self._indices.clear()

    def place(self, scalar: Sequence[int], first: Sequence[int]) -> None:
        """For each row of the batch: the table's row for tokens without a pixel, and that of the image's first
        timestep, which the others follow."""
        self._scalar_rows, self._first_rows = scalar, first

    def give(self, number: int, chunks: Sequence[Tensor]) -> None:
        """The chunks of a modulation that the network is about to apply, ``(R, D)`` each."""
        scales = {site.scale for site in self.modulations[number].inputs}
        self._chunks[number] = [1 + chunk if i in scales else chunk for i, chunk in enumerate(chunks)]
        self._sites_left[number] = len(self.modulations[number].inputs) + len(self.modulations[number].outputs)

    def _on_input(self, number: int, site: Input) -> Callable:
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            if number not in self._sites_left:
                return None
            chunks, index = self._chunks[number], self._index_of(number, args[0])
            # What a block modulates it has made for this module alone.
            x = scale_shift(args[0], index, chunks[site.scale], chunks[site.shift])
            self._done(number)
            return (x, *args[1:])

        return hook

    def _on_output(self, number: int, site: Output) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if number not in self._sites_left:
                return None
            index = self._index_of(number, output)
            output = scale_shift(output, index, self._chunks[number][site.gate], None)
            self._done(number)
            return output

        return hook

    def _index_of(self, number: int, tokens: Tensor) -> Tensor:
        """Row of a modulation's chunks for each token of ``(N, L, D)``, beside them."""
        return self._index(tokens.shape[1], self.modulations[number].with_text).to(tokens.device)

    def _index(self, tokens: int, with_text: bool) -> Tensor:
        """Row of the tables for each token, ``(N*L,)``; built once per kind of stream and model call."""
        if (tokens, with_text) not in self._indices:
            assert self._table is not None
            if not with_text:
                self._image_tokens = tokens
            text = tokens - self._image_tokens
            own = self._table.index_at(*patch_grid(*self._table.index.shape[-2:])).flatten(1)[list(self._rows)]
            references = tokens - text - own.shape[1]
            if references < 0:
                raise RuntimeError(f"the network has {tokens - text} image tokens where the map has {own.shape[1]}")
            scalar, first = (
                torch.as_tensor(rows, device=own.device).view(-1, 1) for rows in (self._scalar_rows, self._first_rows)
            )
            parts = [scalar.expand(-1, text), own + first, scalar.expand(-1, references)]
            self._indices[(tokens, with_text)] = torch.cat(parts, dim=1).flatten()
        return self._indices[(tokens, with_text)]

    def _done(self, number: int) -> None:
        self._sites_left[number] -= 1
        if self._sites_left[number]:
            return
        del self._sites_left[number], self._chunks[number]
        self.calls += 1
        if number == len(self.modulations) - 1 and self._sites_left:
            raise RuntimeError("the network left out layers whose modulation AsynDM had taken over")
