"""A region for networks that know no objects: blobs that move about, while the attention is read all the same."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.region.grid import enlarge
from asyndm_ext.region.regions import ObjectRegion, Shape

STRENGTHS = (0.7, 0.4)
_EVERY = 3  # model calls between two moves


class Blobs:
    """Two discs per image, each of a strength of its own, that move every third step as real masks change.

    Random weights put objects everywhere and nowhere, and another place in every step; so the region that they give
    is worked out, which costs what it costs, and the pixels follow the discs. Their edges are on the grid that
    attention has, a quarter of the latent's side.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._read = ObjectRegion(shape, STRENGTHS)
        self._calls = 0

    def observe(self, maps: Tensor | None, progress: float) -> None:
        self._read.observe(maps, progress)
        self._calls += 1

    def strength(self, progress: float) -> Tensor:
        self._read.strength(progress)
        images, _, height, width = self._shape
        cells = torch.zeros(images, 1, -(-height // 4), -(-width // 4), dtype=torch.float64)
        rows = torch.linspace(0, 1, cells.shape[-2]).view(-1, 1)
        columns = torch.linspace(0, 1, cells.shape[-1]).view(1, -1)
        for image in range(images):
            for number, strength in enumerate(STRENGTHS):
                seed = 1000 * image + 100 * number + self._calls // _EVERY
                generator = torch.Generator().manual_seed(seed)
                y, x = (0.3 + 0.4 * torch.rand(2, generator=generator)).tolist()
                inside = ((rows - y) ** 2 + (columns - x) ** 2 < 0.25**2).double() * strength
                cells[image, 0] = torch.maximum(cells[image, 0], inside)
        return enlarge(cells, (height, width))
