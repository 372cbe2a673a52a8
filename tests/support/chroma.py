"""A small Chroma with the module layout of the real one: Flux's blocks, whose modulations all come from one network.

``distilled_guidance_layer`` takes for every vector the sinusoids of timestep, guidance (0) and the vector's own number.
The vectors are the single blocks' (3 each), the double blocks' for the image (6 each), theirs for the text, the end's.
Before the end's there may be spare ones, where the network is shallower than the one that they were made for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.flux import Embedder, Flux, Modulated
from support.ldm_unet import sinusoid


def layer_input(t: Tensor, vectors: int) -> Tensor:
    """``t`` of any shape, thousandths -> ``(..., vectors, 64)``."""
    time = sinusoid(t, 16).view(*t.shape, 1, 16).expand(*t.shape, vectors, 16)
    guidance = sinusoid(torch.zeros(1, device=t.device), 16).expand(*t.shape, vectors, 16)
    number = sinusoid(1000.0 * torch.arange(vectors, device=t.device), 32).expand(*t.shape, vectors, 32)
    return torch.cat([time, guidance, number], dim=-1)


class Chroma(Flux):
    def __init__(self, width: int = 32, heads: int = 2, depth: int = 2, singles: int = 2, spare: int = 0) -> None:
        super().__init__(width, heads, depth, singles)
        del self.time_in, self.guidance_in, self.vector_in, self.final_layer.adaLN_modulation
        for block in self.double_blocks:
            del block.img_mod, block.txt_mod
        for block in self.single_blocks:
            del block.modulation
        self.vectors = 3 * singles + 12 * depth + spare + 2
        self.distilled_guidance_layer: nn.Module = nn.Sequential(Embedder(64, 2 * width), nn.Linear(2 * width, width))

    def blocks(self, img: Tensor, txt: Tensor, t: Tensor, y: Tensor, pe: Tensor) -> Tensor:
        singles, depth = len(self.single_blocks), len(self.double_blocks)
        made = self.distilled_guidance_layer(layer_input(1000 * t, self.vectors).to(img.dtype))

        def modulation(first: int) -> Modulated:
            return Modulated(*made[:, first : first + 3].split(1, dim=1))

        for i, block in enumerate(self.double_blocks):
            mods = []
            for first in (3 * singles + 6 * i, 3 * singles + 6 * depth + 6 * i):
                mods.append([modulation(first), modulation(first + 3)])
            img, txt = block.modulated(img, txt, *mods, pe)
        joined = torch.cat([txt, img], dim=1)
        for i, block in enumerate(self.single_blocks):
            joined = block.modulated(joined, modulation(3 * i), pe)
        image = self.final_layer.norm_final(joined[:, txt.shape[1] :])
        return self.final_layer.linear((1 + made[:, -1:]) * image + made[:, -2:-1])
