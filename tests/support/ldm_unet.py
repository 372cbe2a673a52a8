"""A small UNet with the module layout of latent diffusion (ldm, sgm), random weights.

Names and order of the parts are what per-pixel conditioning relies on: ``time_embed``, ``label_emb``, and blocks
with ``in_layers``, ``emb_layers``, ``out_layers`` that append dimensions to the projected embedding until it has
as many as the feature map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 4


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of ``t`` at ``dim/2`` frequencies from 1 down to (nearly) 1/10000."""
    frequencies = torch.tensor([math.exp(-math.log(10000.0) * i / (dim // 2)) for i in range(dim // 2)]).to(t.device)
    angles = t.float().reshape(-1, 1) * frequencies.reshape(1, -1)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class ResBlock(nn.Module):
    """Convolution, plus time embedding, convolution, plus input."""

    def __init__(self, channels: int, embedding: int, out: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x)
        shift = self.emb_layers(emb).type(h.dtype)
        while shift.ndim < h.ndim:
            shift = shift.unsqueeze(-1)
        return self.skip_connection(x) + self.out_layers(h + shift)


class Downsample(nn.Module):
    """Half the side, rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class LdmUNet(nn.Module):
    """Three resolutions below the full one, a block on each and a skip connection from each.

    Args:
        channels: at full resolution.
        labels: width of the vector that ``label_emb`` takes (SDXL), or None.
    """

    def __init__(self, channels: int = 16, labels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        width = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        if labels is not None:
            parts = nn.Sequential(nn.Linear(labels, width), nn.SiLU(), nn.Linear(width, width))
            self.label_emb = nn.Sequential(parts)
        self.input_conv = nn.Conv2d(4, channels, 3, padding=1)
        sizes = [channels, channels, 2 * channels, 2 * channels]
        self.input_blocks = nn.ModuleList(
            [ResBlock(a, width, b) for a, b in zip([channels, *sizes], sizes, strict=False)]
        )
        self.downsamples = nn.ModuleList([Downsample(size) for size in sizes[:-1]])
        self.middle_block = ResBlock(sizes[-1], width, sizes[-1])
        afterwards = [*sizes[-2::-1], channels]
        self.output_blocks = nn.ModuleList(
            [ResBlock(2 * size, width, after) for size, after in zip(sizes[::-1], afterwards, strict=True)]
        )
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time_embed(sinusoid(timesteps, self.channels).type(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, skips = self.input_conv(x), []
        for number, block in enumerate(self.input_blocks):
            h = block(h, emb)
            skips.append(h)
            if number < len(self.downsamples):
                h = self.downsamples[number](h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            skip = skips.pop()
            if h.shape[-2:] != skip.shape[-2:]:
                h = functional.interpolate(h, skip.shape[-2:], mode="nearest")
            h = block(torch.cat([h, skip], dim=1), emb)
        return self.out(h)
