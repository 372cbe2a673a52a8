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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from asyndm_ext.machine.compiling import is_compiling, may_compile
from asyndm_ext.machine.transfer import sent
from asyndm_ext.model.patches import patch_grid
from asyndm_ext.model.pieces import fits, scale_shift
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.token_rows import Chunks, RowTable, TokenRows

_OPEN = 20.0  # tanh of it is 1 in every floating-point format that networks run in


@dataclass(frozen=True)
class Input:
    """Tokens enter ``module`` as ``x * (1 + scale) + shift``; the numbers of those two among the chunks.

    Attributes:
        shift: None where nothing is added.
        argument: the keyword by which the block hands over the tokens, where it is no positional argument.
    """

    module: nn.Module
    shift: int | None
    scale: int
    argument: str = ""


@dataclass(frozen=True)
class Output:
    """Tokens leave ``module`` as ``gate * x``; the number of the gate among the chunks.

    Attributes:
        tanh: whether the block multiplies by the tanh of the gate.
    """

    module: nn.Module
    gate: int
    tanh: bool = False


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
        """How many vectors it has."""
        shifts = [site.shift for site in self.inputs if site.shift is not None]
        return 1 + max([*shifts, *(site.scale for site in self.inputs), *(site.gate for site in self.outputs)])

    @property
    def scales(self) -> list[int]:
        """Which of the vectors are scales."""
        return sorted({site.scale for site in self.inputs})

    @property
    def groups(self) -> list[range]:
        """Neighbours that a block uses one after the other, nothing large in between: shift and scale, and the gate of
        what came before."""
        found = []
        for site in self.inputs:
            ends = sorted({site.scale} | ({site.scale} if site.shift is None else {site.shift}))
            if ends[-1] - ends[0] < 2:
                before = any(gate.gate == ends[0] - 1 and not gate.tanh for gate in self.outputs)
                found.append(range(ends[0] - before, ends[-1] + 1))
        return found

    @property
    def sites(self) -> int:
        """How often it is applied in a call of the network."""
        return len(self.inputs) + len(self.outputs)

    def neutral(self, like: Tensor) -> Tensor:
        """A modulation that changes nothing, ``(..., chunks, D)`` as ``like``."""
        chunks = torch.zeros_like(like)
        for gate, tanh in {(site.gate, site.tanh) for site in self.outputs}:
            chunks[..., gate, :] = _OPEN if tanh else 1
        return chunks

    def factors(self, chunks: Sequence[Tensor]) -> list[Tensor]:
        """The chunks ``(R, D)`` as tokens are multiplied by them, or as they are where they are added."""
        scales = {site.scale for site in self.inputs}
        tanh = {site.gate for site in self.outputs if site.tanh}
        return [1 + one if i in scales else one.tanh() if i in tanh else one for i, one in enumerate(chunks)]


class _Stream(NamedTuple):
    """Attributes: tokens: of a row of the batch, the text's first. pixels: those behind the text's."""

    tokens: int
    pixels: int


class TokenModulations:
    """Applies modulations token by token while :meth:`attached` is active and rows have been given.

    A modulation's chunks are tables of rows ``(R, D)``; which row a token takes is the same in all modulations. There
    are two ways: the network is handed a :meth:`stand_in`; or a neutral modulation, and the rows are applied from
    outside (:meth:`give`), piece by piece, as suits a CPU whose cache is smaller than the tokens are.

    Args:
        modulations: of a network, in the order in which it gets to them; the last one at the very end.
        patch: side of a token in latent pixels.

    Attributes:
        calls: how many modulations were applied since the last :meth:`use`.
    """

    def __init__(self, modulations: Sequence[Modulation], patch: int) -> None:
        self.modulations = list(modulations)
        self.calls = 0
        self._cells = 0  # tokens that have a pixel
        self._patch = patch
        self._table: TimestepTable | None = None
        self._rows: Sequence[int] = ()
        self._scalar_rows: Sequence[int] = ()
        self._first_rows: Sequence[int] = ()
        self._chunks: dict[int, Sequence[Tensor]] = {}
        self._sites_left: dict[int, int] = {}
        self._image_tokens = 0
        self._indices: dict[_Stream, Tensor] = {}
        self._asked: list[_Stream] = []  # in the call before, and so in the next one
        # Most blocks' are of one kind.
        kinds = [(one.chunks, tuple(one.scales), tuple(one.groups)) for one in modulations]
        self._kind = [kinds.index(kind) for kind in kinds]
        self._consists: dict[tuple, Chunks] = {}
        self._handles: list[RemovableHandle] = []
        self._registered = False

    @contextmanager
    def attached(self) -> Iterator[TokenModulations]:
        """The hooks on what the tokens go through live inside this block only, from when they are needed on: each
        costs every call of its module some time. They are removed however the block is left."""
        try:
            yield self
        finally:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self._registered = False
            self.use(None, ())
            self._consists.clear()

    def _register(self) -> None:
        if self._registered:
            return
        self._registered = True
        for number, modulation in enumerate(self.modulations):
            for entered in modulation.inputs:
                by_name = bool(entered.argument)
                hook = (self._on_named_input if by_name else self._on_input)(number, entered)
                self._handles.append(entered.module.register_forward_pre_hook(hook, with_kwargs=by_name))
            for left in modulation.outputs:
                self._handles.append(left.module.register_forward_hook(self._on_output(number, left)))

    def use(
        self, table: TimestepTable | None, rows: Sequence[int], scalar: Sequence[int] = (), first: Sequence[int] = ()
    ) -> None:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to.

        Args:
            scalar, first: for each row of the batch, the row of the modulations' tables for tokens without a pixel, and
                that of its image's first timestep, which the others follow.
        """
        if table is not None and may_compile():
            self._register()  # not while a network is being compiled
        self._table, self._rows = table, rows
        self._scalar_rows, self._first_rows = scalar, first
        self.calls = 0
        self._cells = 0 if table is None else self._grid[0] * self._grid[1]
        self._chunks.clear()
        self._sites_left.clear()
        self._image_tokens = 0
        self._indices.clear()

    def foreseen(self) -> dict[_Stream, Tensor]:
        """The indices that this call will need if it is like the one before, on the CPU."""
        asked, self._asked = self._asked, []
        return {stream: self._made_index(stream) for stream in asked if stream.pixels >= self._cells}

    def have(self, indices: dict[_Stream, Tensor]) -> None:
        """What was foreseen, beside the network."""
        self._indices.update(indices)

    def hands_over(self, output: Tensor) -> bool:
        """Whether a network that makes such modulations is handed a :meth:`stand_in`."""
        assert self._table is not None
        if is_compiling():
            return False
        return fits(len(self._rows) * self._cells * output.shape[-1] * output.element_size(), output.device)

    @property
    def _grid(self) -> tuple[int, int]:
        assert self._table is not None
        height, width = self._table.size
        return patch_grid(height, width, self._patch)

    def stand_in(self, number: int, rows: Tensor, expanded: bool) -> TokenRows:
        """What the network takes for its modulation.

        Args:
            rows: ``(R, k*D)``. expanded: the network itself has given them a dimension for tokens.
        """
        modulation = self.modulations[number]
        key = (self._kind[number], rows.shape[-1], rows.dtype, rows.device)
        chunks = self._consists.get(key)
        if chunks is None:
            chunks = self._consists[key] = self._chunks_of(modulation, rows)
        index = self._index_with_text if modulation.with_text else self._index_without_text
        return TokenRows(RowTable(rows, chunks, index, len(self._rows), self._used), chunks.all, expanded)

    def _chunks_of(self, modulation: Modulation, rows: Tensor) -> Chunks:
        ones = torch.zeros(modulation.chunks, rows.shape[-1] // modulation.chunks)
        ones[modulation.scales] = 1
        ones = sent(ones.flatten().to(rows.dtype), rows.device)
        return Chunks(modulation.chunks, modulation.groups, ones, modulation.scales)

    def _used(self) -> None:
        self.calls += 1

    def _index_with_text(self, tokens: int) -> Tensor:
        return self._index(tokens, True)

    def _index_without_text(self, tokens: int) -> Tensor:
        return self._index(tokens, False)

    def give(self, number: int, chunks: Sequence[Tensor]) -> None:
        """The chunks of a modulation that the network is about to apply, ``(R, D)`` each."""
        self._register()
        modulation = self.modulations[number]
        self._chunks[number] = modulation.factors(chunks)
        self._sites_left[number] = modulation.sites

    def _on_input(self, number: int, site: Input) -> Callable:
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            if number not in self._sites_left:
                return None
            return self._entering(number, site, args[0]), *args[1:]

        return hook

    def _on_named_input(self, number: int, site: Input) -> Callable:
        name = site.argument

        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
            if number not in self._sites_left:
                return None
            if name in kwargs:
                return args, {**kwargs, name: self._entering(number, site, kwargs[name])}
            return (self._entering(number, site, args[0]), *args[1:]), kwargs

        return hook

    def _entering(self, number: int, site: Input, tokens: Tensor) -> Tensor:
        """The tokens as they enter a module; what a block modulates it has made for this module alone."""
        chunks, index = self._chunks[number], self._index_of(number, tokens)
        shift = None if site.shift is None else chunks[site.shift]
        tokens = scale_shift(tokens, index, chunks[site.scale], shift)
        self._done(number)
        return tokens

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
        """Row of a modulation's chunks for each token of ``(N, ..., D)``, beside them."""
        count = tokens.shape[1:-1].numel()
        return self._index(count, self.modulations[number].with_text).to(tokens.device)

    def _index(self, tokens: int, with_text: bool) -> Tensor:
        """Row of the tables for each token, ``(N*L,)``; built once per kind of stream and model call."""
        if not with_text:
            self._image_tokens = tokens
        stream = _Stream(tokens, self._image_tokens)
        if stream not in self._asked:
            self._asked.append(stream)
        found = self._indices.get(stream)
        if found is None:
            assert self._table is not None
            found = self._indices[stream] = sent(self._made_index(stream), self._table.device)
        return found

    def _made_index(self, stream: _Stream) -> Tensor:
        """The same on the CPU."""
        assert self._table is not None
        text = stream.tokens - stream.pixels
        scalar = torch.tensor(list(self._scalar_rows))
        own = self._table.moved(self._rows, self._first_rows).index_at(*self._grid).flatten(1)
        rest = stream.pixels - own.shape[1]
        if rest < 0:
            raise RuntimeError(f"the network has {stream.pixels} image tokens where the map has {own.shape[1]}")
        # Behind the picture: reference images, and what fills up a length.
        parts = [scalar.view(-1, 1).expand(-1, text), own, scalar.view(-1, 1).expand(-1, rest)]
        return torch.cat(parts, dim=1).flatten().int()

    def _done(self, number: int) -> None:
        self._sites_left[number] -= 1
        if self._sites_left[number]:
            return
        del self._sites_left[number], self._chunks[number]
        self.calls += 1
        if number == len(self.modulations) - 1 and self._sites_left:
            raise RuntimeError("the network left out layers whose modulation AsynDM had taken over")
