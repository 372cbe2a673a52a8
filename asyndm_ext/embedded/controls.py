"""Regions that have nothing to do with the method, to hold it against: what else can lag?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from asyndm_ext.region.regions import FixedRegion, Region, Shape

Control = Literal["rest", "half"]


class Rest:
    """The other way round: everything but the objects lags.

    Args:
        region: of the objects, whose strengths are between 0 and ``strength``.
        strength: of the rest, fraction.
    """

    def __init__(self, region: Region, strength: float) -> None:
        self._region, self._strength = region, strength

    def observe(self, maps: Tensor | None, progress: float) -> None:
        self._region.observe(maps, progress)

    def strength(self, progress: float) -> Tensor:
        return (self._strength - self._region.strength(progress)).clamp_min(0)


def half(shape: Shape, strength: float, seeds: Sequence[int]) -> FixedRegion:
    """The left, right, upper or lower half of each picture lags, which one the seed says and not the prompt."""
    map_ = torch.zeros(shape, dtype=torch.float64)
    height, width = shape[-2:]
    for row, seed in zip(map_, seeds, strict=True):
        side = seed % 4
        if side < 2:
            row[..., : width // 2] = strength * (side == 0)
            row[..., width // 2 :] = strength * (side == 1)
        else:
            row[..., : height // 2, :] = strength * (side == 2)
            row[..., height // 2 :, :] = strength * (side == 3)
    return FixedRegion(map_)


def controlled(control: Control, region: Region, shape: Shape, strength: float, seeds: Sequence[int]) -> Region:
    """The control's region in place of the objects'."""
    return half(shape, strength, seeds) if control == "half" else Rest(region, strength)
