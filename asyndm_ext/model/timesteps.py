"""A map of timesteps as a short table and an index: the network embeds the table, never the pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asyndm_ext.region.grid import distinct, downsampling

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
    return float(level.max() - level.min()) <= 1e-12 * float(level.abs().max())


@dataclass(frozen=True)
class TimestepTable:
    """The distinct timesteps of each image, one after another, and where each pixel finds its own.

    Its tensors are on the CPU: what a network needs of them is sent to it in one copy, before it runs.

    Attributes:
        values: ``(R,)`` timesteps, image after image.
        index: ``(B,H,W)`` int64, a pixel's row within its image's part of ``values``.
        counts: rows per image, ``B`` ints summing to R.
        device: where the network runs.
    """

    values: Tensor
    index: Tensor
    counts: tuple[int, ...]
    device: torch.device = CPU

    @classmethod
    def from_map(cls, t: Tensor, quantum: float) -> TimestepTable:
        """Args: ``t`` timesteps ``(B,1,H,W)``; ``quantum``: round to multiples of this many timesteps (half to even).

        Per image, so that an image's numbers do not depend on who shares its batch.
        """
        values, indices = [], []
        for image in (t[:, 0].double() / quantum).round() * quantum:
            own, index = distinct(image)
            values.append(own)
            indices.append(index)
        return cls(torch.cat(values), torch.stack(indices), tuple(len(v) for v in values))

    @classmethod
    def joined(cls, tables: Sequence[TimestepTable]) -> TimestepTable:
        """Several tables as one, their images one after another."""
        return cls(
            torch.cat([table.values for table in tables]),
            torch.cat([table.index for table in tables]),
            tuple(count for table in tables for count in table.counts),
        )

    def to(self, device: torch.device) -> TimestepTable:
        """For a network that runs there."""
        return replace(self, device=device)

    def offsets(self) -> list[int]:
        """First row of each image's part of ``values``."""
        return [sum(self.counts[:b]) for b in range(len(self.counts))]

    def index_at(self, h: int, w: int) -> Tensor:
        """``index`` seen by a feature map of ``h`` x ``w``: ``(B,h,w)``, every (H/h)-th pixel as the authors do."""
        height, width = self.index.shape[-2:]
        rows = (torch.arange(h, device=self.index.device) * downsampling(height, h)).clamp(max=height - 1)
        columns = (torch.arange(w, device=self.index.device) * downsampling(width, w)).clamp(max=width - 1)
        return self.index[:, rows][:, :, columns]
