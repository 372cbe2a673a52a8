"""Per-token time conditioning of diffusion transformers, by distinct timesteps.

A block modulates its tokens by shifts, scales and gates (adaLN; Peebles and Xie 2023), which a linear layer makes of
the vector ``c = time [+ pooled text] [+ guidance]``; in Chroma one small network makes those of all blocks. Time MLP,
linear layers and that network run on the distinct timesteps only (tens of rows, not one per token), in the call that
is made anyway; :mod:`asyndm_ext.model.token_modulation` gives each token its row. With no table set the hooks return
at once and the network computes what it always computes.

Tokens without a pixel (text, reference images appended after the picture as FLUX.1 Kontext has them) keep the
scalar conditioning, of the host's nominal level. Tried on random MMDiT and Flux networks with two levels 125 to 150
thousandths apart, 6 to 88 % of the tokens on the slower one: the nominal, the mean and the slower level for the text
move the image by at most 0.06 of what the two levels differ (0.005 with smaller weights), the nominal one least
where the picture is on time. The text itself then stays 0.01 to 0.6 of that difference away from a run at the
nominal level, growing with the slow share; with the mean level it is like neither run (0.5 to 1.2 from both).

What is particular to a network is in :mod:`asyndm_ext.model.transformers`, a file for each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.transfer import sent, sent_together
from asyndm_ext.model.pieces import measure_cache
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding
from asyndm_ext.model.token_modulation import Modulation, TokenModulations
from asyndm_ext.model.token_rows import TokenRows

Hooks = Iterator[Any]
"""Handles of hooks, one after another as they are registered."""


def thousandths(t: Tensor) -> Tensor:
    """What most networks embed: the timestep itself, 1000 times the sigma of a rectified flow."""
    return t


class TokenTime(ABC):
    """Hooks on a transformer that give every image token its own timestep while :meth:`attached` is active.

    Set with :meth:`use` around a model call; with ``table`` None the network is untouched.

    Args:
        modulations: of the image's tokens, in the order in which the network gets to them.
        patch: side of a token in latent pixels.
        embedded: what the network's sinusoid is of, for timesteps in thousandths, any shape.

    Attributes:
        table: distinct timesteps per image on the network's device, in thousandths (1000 times the sigma of a
            rectified flow, whatever the network itself makes of it), or None for the scalar path. A token takes the
            timestep of its patch's first pixel, see :mod:`asyndm_ext.model.patches`.
        rows: image index of each row of the network's batch.
        patch, by_sigma: see :class:`asyndm_ext.model.network.TimeConditioning`.
    """

    by_sigma = True

    def __init__(
        self, modulations: Sequence[Modulation], patch: int, embedded: Callable[[Tensor], Tensor] = thousandths
    ) -> None:
        self.table: TimestepTable | None = None
        self.rows: Sequence[int] = ()
        self.patch = patch
        self._embedded_of = embedded
        self._channels: set[int] = set()  # asked for so far
        self._sinusoids: dict[int, Tensor] = {}
        self._tokens = TokenModulations(modulations, patch)

    @property
    def calls(self) -> int:
        """How many modulations were applied token by token since the last :meth:`use`."""
        return self._tokens.calls

    def use(self, table: TimestepTable | None, rows: Sequence[int], along: Sequence[Tensor] = ()) -> list[Tensor]:
        """See :class:`asyndm_ext.model.network.TimeConditioning`."""
        self.table, self.rows = table, rows
        self._sinusoids = {}
        if table is None:
            self._tokens.use(None, ())
            return list(along)
        measure_cache()
        self._tokens.use(table, rows, *self._places(table))
        own, channels, foreseen = self._own_rows(table), list(self._channels), self._tokens.foreseen()
        sinusoids = [self._made_sinusoid(table, each) for each in channels]
        there = iter(sent_together([*along, *own, *sinusoids, *foreseen.values()], table.device))
        brought = [next(there) for _ in along]
        self._take_rows([next(there) for _ in own])
        self._sinusoids = {each: next(there) for each in channels}
        self._tokens.have({key: next(there) for key in foreseen})
        return brought

    def _places(self, table: TimestepTable) -> tuple[Sequence[int], Sequence[int]]:
        """See :meth:`TokenModulations.use`. Here the tables of rows are the batch's own and then, the same for all rows
        of an image, the timesteps'."""
        offsets, count = table.offsets(), len(self.rows)
        return range(count), [count + offsets[image] for image in self.rows]

    def _own_rows(self, table: TimestepTable) -> Sequence[Tensor]:
        """What else is needed beside the network, on the CPU, 4 bytes a number; :meth:`_take_rows` gets it."""
        return ()

    def _take_rows(self, own: Sequence[Tensor]) -> None:  # noqa: B027 (nothing to take here)
        """What was asked for, beside the network."""

    @contextmanager
    def attached(self) -> Iterator[TokenTime]:
        """Register the hooks; they are removed however the block is left."""
        handles: list[Any] = []
        try:
            with self._tokens.attached():
                for handle in self._register():
                    handles.append(handle)
                yield self
        finally:
            for handle in handles:
                handle.remove()
            self.use(None, ())

    @abstractmethod
    def _register(self) -> Hooks:
        """Register the hooks that make the modulations' rows."""

    def _sinusoid(self, batch: Tensor, channels: int) -> Tensor:
        """Of the table's timesteps ``(R, channels)``, as the network's own input ``(N, ...)`` is."""
        assert self.table is not None
        if len(batch) != len(self.rows):
            raise RuntimeError(f"the network ran on {len(batch)} rows where {len(self.rows)} were expected")
        self._channels.add(channels)
        if channels not in self._sinusoids:
            self._sinusoids[channels] = sent(self._made_sinusoid(self.table, channels), batch.device)
        return self._sinusoids[channels].to(batch.dtype)

    def _made_sinusoid(self, table: TimestepTable, channels: int) -> Tensor:
        """The same on the CPU, float32."""
        return timestep_embedding(self._embedded_of(table.values), channels)


@dataclass(frozen=True)
class AdaLN:
    """The module that takes ``c``, its linear layer, and where the chunks of that layer's output go."""

    entry: nn.Module
    linear: nn.Module
    modulation: Modulation

    @classmethod
    def of(cls, sequential: Any, modulation: Modulation) -> AdaLN:
        """Of an activation and a linear layer, one after the other."""
        return cls(sequential, sequential[-1], modulation)


class DiTTimeConditioning(TokenTime):
    """For networks whose modulations are made by linear layers, of one vector that all of them are given.

    Args:
        time_mlp: takes the sinusoid ``(N, channels)``.
        adaln: of the image's tokens, in the order in which the network gets to them.
        patch, embedded: see :class:`TokenTime`.
    """

    def __init__(
        self,
        time_mlp: nn.Module,
        adaln: Sequence[AdaLN],
        patch: int = 2,
        embedded: Callable[[Tensor], Tensor] = thousandths,
    ) -> None:
        super().__init__([one.modulation for one in adaln], patch, embedded)
        self._time_mlp, self._adaln = time_mlp, list(adaln)
        self._picked = self._owners = torch.empty(0)
        self._embedded: Tensor | None = None
        self._conditioning: tuple[Tensor, Tensor] | None = None

    def _register(self) -> Hooks:
        yield self._time_mlp.register_forward_pre_hook(self._before_time_mlp)
        yield self._time_mlp.register_forward_hook(self._after_time_mlp)
        for number, one in enumerate(self._adaln):
            yield one.entry.register_forward_pre_hook(self._on_conditioning)
            yield one.linear.register_forward_hook(self._on_projection(number))

    def use(self, table: TimestepTable | None, rows: Sequence[int], along: Sequence[Tensor] = ()) -> list[Tensor]:
        self._embedded = self._conditioning = None
        return super().use(table, rows, along)

    def _places(self, table: TimestepTable) -> tuple[Sequence[int], Sequence[int]]:
        """For each batch row the scalar one, then one per timestep of its image."""
        scalar, at = [], 0
        for image in self.rows:
            scalar.append(at)
            at += 1 + table.counts[image]
        return scalar, [row + 1 for row in scalar]

    def _own_rows(self, table: TimestepTable) -> Sequence[Tensor]:
        """Of these rows, which of the time embeddings each is, and which of the batch's rows."""
        offsets, count = table.offsets(), len(self.rows)
        picked, owners = [], []
        for row, image in enumerate(self.rows):
            first = count + offsets[image]
            picked += [row, *range(first, first + table.counts[image])]
            owners += [row] * (1 + table.counts[image])
        return torch.tensor(picked, dtype=torch.int32), torch.tensor(owners, dtype=torch.int32)

    def _take_rows(self, own: Sequence[Tensor]) -> None:
        self._picked, self._owners = own

    # -- time embedding: the table's rows after the batch's own

    def _before_time_mlp(self, module: nn.Module, args: tuple) -> tuple | None:
        if self.table is None:
            return None
        return (torch.cat([args[0], self._sinusoid(args[0], args[0].shape[-1])]),)

    def _after_time_mlp(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if self.table is None:
            return None
        self._embedded = output
        return output[: len(self.rows)].clone()  # a network may add what else it is told in its place

    # -- conditioning

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
        assert self._embedded is not None
        embedded = self._embedded.float()
        added = c.reshape(len(self.rows), -1).float() - embedded[: len(self.rows)]
        made = embedded.index_select(0, self._picked) + added.index_select(0, self._owners)
        return made.to(c.dtype).view(-1, *c.shape[1:])

    def _on_projection(self, number: int) -> Callable:
        modulation = self._adaln[number].modulation

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | TokenRows | None:
            if self.table is None:
                return None
            if self._tokens.hands_over(output):
                expanded = output.ndim == 3
                return self._tokens.stand_in(number, output.flatten(0, -2) if expanded else output, expanded)
            chunks = output.unflatten(-1, (modulation.chunks, -1))
            self._tokens.give(number, chunks.flatten(0, -3).unbind(dim=1))
            return modulation.neutral(chunks[: len(self.rows)]).flatten(-2)

        return hook
