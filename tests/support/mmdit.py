"""The bench's MMDiT, small: SD3's, and with both options SD3.5 medium's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyndm_ext.bench import dit
from asyndm_ext.bench.dit import DiTShape, attend, modulate
from support.ldm_unet import sinusoid

__all__ = ["SINUSOID", "MMDiT", "RMSNorm", "TimestepEmbedder", "attend", "modulate"]

SINUSOID = 32


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * self.weight


class TimestepEmbedder(dit.TimestepEmbedder):
    def __init__(self, width: int) -> None:
        super().__init__(width, SINUSOID, sinusoid)


class MMDiT(dit.MMDiT):
    """Args: ``dual``: the first block has a second attention of the image alone; ``normed``: normalised q and k."""

    channels = 4
    norm = RMSNorm
    sinusoid = staticmethod(sinusoid)

    def __init__(
        self, width: int = 32, heads: int = 4, depth: int = 3, dual: bool = False, normed: bool = False
    ) -> None:
        shape = DiTShape(width, heads, depth, context=12, labels=10, channels=self.channels, hidden=2)
        super().__init__(replace(shape, sinusoid=SINUSOID, positions=40, normed=normed, dual=dual, cut=True))

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """``x`` ``(N,4,H,W)``, t ``(N,)`` from 0 to 1000, y ``(N,10)``, context ``(N,T,12)``; odd sizes are padded."""
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, width % 2, 0, height % 2), mode="circular")
        return super().forward(x, t, context, y)[:, :, :height, :width]
