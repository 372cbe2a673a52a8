"""The bench's UNet without attention and as small as can be, with a time embedding of the tests' own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.bench.unet import ResBlock, UNet, UNetShape

__all__ = ["LdmUNet", "ResBlock", "sinusoid"]


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of ``t`` at ``dim/2`` frequencies from 1 down to (nearly) 1/10000."""
    frequencies = torch.tensor([math.exp(-math.log(10000.0) * i / (dim // 2)) for i in range(dim // 2)]).to(t.device)
    angles = t.float().reshape(-1, 1) * frequencies.reshape(1, -1)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class LdmUNet(UNet):
    """Three resolutions below the full one, a block on each and a skip connection from each.

    Args:
        channels: at full resolution.
        labels: width of the vector that ``label_emb`` takes (SDXL), or None.
    """

    sinusoid = staticmethod(sinusoid)

    def __init__(self, channels: int = 16, labels: int | None = None) -> None:
        super().__init__(UNetShape(channels, (1, 1, 2, 2), (0, 0, 0, 0), 1, context=0, labels=labels or 0, groups=4))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, timesteps, None, y)
