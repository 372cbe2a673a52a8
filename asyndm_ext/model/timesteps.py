"""A map of timesteps as a short table and an index: the network embeds the table, never the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.clock.distinct import PIXEL, Block, numbers, repeated
from asyndm_ext.region.grid import downsampling

# Hosts embed fractional timesteps as they are; multiples of this keep the table of distinct ones short, and
# the whole timesteps of DDIM and its kin are untouched.
QUANTUM = 0.25
CPU = torch.device("cpu")


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding ``(R,) -> (R, dim)`` in float32, cosine half first (Ho et al. 2020, as in ldm)."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    args = t.float()[:, None] * freqs[None]
    embedding = torch.cat([args.cos(), args.sin()], dim=-1)
    if dim % 2:
        embedding = torch.cat([embedding, torch.zeros_like(embedding[:, :1])], dim=-1)
    return embedding


def is_uniform(level: Tensor) -> bool:
    """Whether a map has one level only. Equal inputs may differ in the last bit where a vector unit's width ends."""
    values = numbers(level).values
    low, high = float(values[0]), float(values[-1])
    return high - low <= 1e-12 * max(abs(low), abs(high))


@dataclass(frozen=True)
class TimestepTable:
    """The distinct timesteps of each image, one after another, and where each pixel finds its own.

    Its tensors are on the CPU: what a network needs of them is sent to it in one copy, before it runs.

    Attributes:
        values: ``(R,)`` timesteps, image after image.
        cells: ``(B,h,w)`` int32, a cell's row within its image's part of ``values``.
        counts: rows per image, ``B`` ints summing to R.
        device: where the network runs.
        block: the pixels of a cell.
    """

    values: Tensor
    cells: Tensor
    counts: tuple[int, ...]
    device: torch.device = CPU
    block: Block = PIXEL

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the map."""
        return self.cells.shape[-2] * self.block[0], self.cells.shape[-1] * self.block[1]

    @property
    def index(self) -> Tensor:
        """``(B,H,W)``, a pixel's row within its image's part of ``values``."""
        return repeated(self.cells, self.block)

    @classmethod
    def from_map(
        cls, level: Tensor, quantum: float, timestep: Callable[[Tensor], Tensor] | None = None
    ) -> TimestepTable:
        """Per image, so that an image's numbers do not depend on who shares its batch.

        Args:
            level: ``(B,1,H,W)``; timesteps, if nothing makes them of it.
            quantum: round to multiples of this many timesteps (half to even).
            timestep: the timestep of each level, any shape.
        """
        levels, at, block = numbers(level.double())
        exact = levels if timestep is None else timestep(levels).double()
        values, of = torch.unique((exact / quantum).round() * quantum, return_inverse=True)
        images, number = len(level), len(values)
        index = of.numpy()[at[:, 0].numpy()] + number * np.arange(images).reshape(-1, 1, 1)
        there = np.bincount(index.ravel(), minlength=images * number).reshape(images, number) > 0
        own = (there.cumsum(axis=1, dtype=np.int32) - 1).ravel()[index]
        picked = torch.from_numpy(np.nonzero(there)[1])
        return cls(values[picked], torch.from_numpy(own), tuple(there.sum(axis=1).tolist()), block=block)

    @classmethod
    def joined(cls, tables: Sequence[TimestepTable]) -> TimestepTable:
        """Several tables of maps of the same size as one, their images one after another."""
        blocks = {table.block for table in tables}
        return cls(
            torch.cat([table.values for table in tables]),
            torch.cat([table.cells if len(blocks) == 1 else table.index for table in tables]),
            tuple(count for table in tables for count in table.counts),
            block=blocks.pop() if len(blocks) == 1 else PIXEL,
        )

    def to(self, device: torch.device) -> TimestepTable:
        """For a network that runs there."""
        return replace(self, device=device)

    def moved(self, images: Sequence[int], first: Sequence[int]) -> TimestepTable:
        """For its index only: its images in this order, the rows of each counted from ``first`` on."""
        offsets = torch.tensor(list(first), dtype=torch.int32).view(-1, 1, 1)
        return replace(self, cells=self.cells.index_select(0, torch.tensor(list(images))) + offsets)

    def offsets(self) -> list[int]:
        """First row of each image's part of ``values``."""
        return [sum(self.counts[:b]) for b in range(len(self.counts))]

    def index_at(self, h: int, w: int) -> Tensor:
        """``index`` seen by a feature map of ``h`` x ``w``: ``(B,h,w)``, every (H/h)-th pixel as the authors do."""
        (height, width), (tall, wide) = self.size, self.block
        down, across = downsampling(height, h), downsampling(width, w)
        if (h - 1) * down < height and (w - 1) * across < width:
            # Powers of two, all of them: a row of the feature map has several cells, or a cell has several rows.
            cells = self.cells[:, :: max(down // tall, 1), :: max(across // wide, 1)]
            return repeated(cells, (max(tall // down, 1), max(wide // across, 1)))[:, :h, :w]
        rows = (torch.arange(h, device=self.cells.device) * down).clamp(max=height - 1)
        columns = (torch.arange(w, device=self.cells.device) * across).clamp(max=width - 1)
        return self.index[:, rows][:, :, columns]
