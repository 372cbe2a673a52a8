"""A small FLUX.2 with the module layout of Klein: Flux's blocks, which share three modulations, and tokens of one
latent pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.flux import Flux, Modulation
from support.ldm_unet import sinusoid
from support.mmdit import SINUSOID


class Flux2(Flux):
    patch_size = 1

    def __init__(self, width: int = 32, heads: int = 2, depth: int = 2, singles: int = 2) -> None:
        super().__init__(width, heads, depth, singles, flat=False)
        del self.guidance_in, self.vector_in
        for block in self.double_blocks:
            del block.img_mod, block.txt_mod
        for block in self.single_blocks:
            del block.modulation
        self.img_in, self.final_layer.linear = nn.Linear(self.channels, width), nn.Linear(width, self.channels)
        self.double_stream_modulation_img, self.double_stream_modulation_txt = (Modulation(width, 2) for _ in range(2))
        self.single_stream_modulation = Modulation(width, 1)

    @staticmethod
    def patches(x: Tensor, picture: int = 0) -> tuple[Tensor, Tensor, tuple[int, int]]:
        h, w = x.shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        ids = torch.stack([torch.full((h, w), picture), rows, columns], dim=-1)
        return x.flatten(2).transpose(1, 2), ids.flatten(0, 1).float(), (h, w)

    @staticmethod
    def picture(tokens: Tensor, h: int, w: int) -> Tensor:
        return tokens[:, : h * w].transpose(1, 2).unflatten(-1, (h, w))

    def blocks(self, img: Tensor, txt: Tensor, t: Tensor, y: Tensor, pe: Tensor) -> Tensor:
        vec = self.time_in(sinusoid(1000 * t, SINUSOID).to(img.dtype))
        mods = [self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(vec)]
        for block in self.double_blocks:
            img, txt = block.modulated(img, txt, *mods, pe)
        joined, (mod,) = torch.cat([txt, img], dim=1), self.single_stream_modulation(vec)
        for block in self.single_blocks:
            joined = block.modulated(joined, mod, pe)
        return self.final_layer(joined[:, txt.shape[1] :], vec)
