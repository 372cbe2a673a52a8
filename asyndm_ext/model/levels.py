"""The levels of one call of the guided model, row by row of the network's batch.

The rows of an image have its level map. Another extension may change the level that the host gives to the network, for
all rows or for some (Detail Daemon does, to get more detail or less). It means every pixel of the row then, so each
pixel's level is changed by the same factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform


class CallLevels:
    """The levels of a call.

    Args:
        level: of each pixel, ``(B,1,H,W)``, on the CPU.
        nominal: the host's own level of this call.
        timestep: what the network embeds for each level, any shape.
    """

    def __init__(self, level: Tensor, nominal: float, timestep: Callable[[Tensor], Tensor]) -> None:
        self.level, self.nominal = level, nominal
        self._timestep = timestep
        self.uniform = float(level.flatten()[0]) if is_uniform(level) else None
        """The level of all pixels where they have the same one."""
        self._tables: dict[float, TimestepTable] = {}
        self._on_device: dict[tuple, TimestepTable] = {}
        if self.uniform is None:
            self._table(1.0)  # while the device is still at work on what came before

    @property
    def size(self) -> tuple[int, int]:
        """Of the latent, ``(H, W)``."""
        return self.level.shape[-2], self.level.shape[-1]

    def of(self, images: Sequence[int], factors: Sequence[float]) -> Tensor:
        """Of each row's pixels, ``(N,1,H,W)``.

        Args:
            images: the image that each row belongs to.
            factors: by how much the level of each row has been changed.
        """
        rows = self.level.index_select(0, torch.tensor(images))
        if all(factor == 1 for factor in factors):
            return rows
        return rows * torch.tensor(factors, dtype=torch.float64).view(-1, 1, 1, 1)

    def scalar(self, factors: Sequence[float], host: Tensor) -> Tensor:
        """The scalars ``(N,)`` to call the host with where all pixels have the same level: its own, if that is its own.

        Args:
            factors: as for :meth:`of`.
            host: what the host brought.
        """
        assert self.uniform is not None
        if self.uniform == self.nominal:
            return host
        return torch.tensor([self.uniform * factor for factor in factors], dtype=host.dtype).to(host.device)

    def table(
        self, images: Sequence[int], factors: Sequence[float], device: torch.device
    ) -> tuple[TimestepTable | None, list[int]]:
        """The timesteps of the rows' pixels, and which of the table's images each row finds its own in. None where all
        pixels have the same level: the host's scalar says it.

        Args:
            images, factors: as for :meth:`of`.
            device: where the table is wanted.
        """
        if self.uniform is not None:
            return None, list(images)
        distinct = sorted(set(factors))
        key = (device, *distinct)
        if key not in self._on_device:
            self._on_device[key] = TimestepTable.joined([self._table(factor) for factor in distinct]).to(device)
        batch = len(self.level)
        return self._on_device[key], [
            distinct.index(factor) * batch + image for image, factor in zip(images, factors, strict=True)
        ]

    def _table(self, factor: float) -> TimestepTable:
        if factor not in self._tables:
            level = self.level if factor == 1 else self.level * factor
            self._tables[factor] = TimestepTable.from_map(level, QUANTUM, self._timestep)
        return self._tables[factor]
