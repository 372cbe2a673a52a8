"""A small NextDiT with the module layout of Z-Image's and Lumina 2's, random weights.

Names and calls of the parts are what per-token conditioning and attention capture rely on: ``t_embedder.mlp``,
``noise_refiner``, ``context_refiner`` and ``layers`` of blocks with ``adaLN_modulation``, ``attention.q_norm``,
``attention.k_norm``, ``attention_norm2``, ``feed_forward``, ``ffn_norm2``, then ``rope_embedder``, ``final_layer``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import flux
from support.ldm_unet import sinusoid
from support.mmdit import SINUSOID, RMSNorm, TimestepEmbedder


class Attention(nn.Module):
    """Queries of all heads, keys and values of fewer perhaps, each of which serves a group of heads."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.groups = heads, heads // key_heads
        self.sizes = [width, width // self.groups, width // self.groups]
        self.qkv, self.out = nn.Linear(width, sum(self.sizes), bias=False), nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)

    def forward(self, x: Tensor, mask: None, pe: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, x.shape[-1] // self.heads)) for part in self.qkv(x).split(self.sizes, -1))
        q, k, v = (part.transpose(1, 2) for part in (self.q_norm(q), self.k_norm(k), v))
        k, v = (part.repeat_interleave(self.groups, dim=1) for part in (k, v))
        return self.out(flux.attend(q, k, v, pe=pe))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.w2 = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Args: ``c``: width of the conditioning vector; None where the block is not modulated."""

    def __init__(self, width: int, heads: int, key_heads: int, c: int | None, active: bool) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(width, heads, key_heads), FeedForward(width)
        for name in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
            setattr(self, name, RMSNorm(width))
        self.modulated = c is not None
        if c is not None:
            self.adaLN_modulation = nn.Sequential(*[nn.SiLU()] * active, nn.Linear(c, 4 * width))

    def forward(self, x: Tensor, mask: None, pe: Tensor, c: Tensor | None = None) -> Tensor:
        if not self.modulated:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), mask, pe))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        scale, gate, scale2, gate2 = (chunk.unsqueeze(1) for chunk in self.adaLN_modulation(c).chunk(4, dim=1))
        attended = self.attention(self.attention_norm1(x) * (1 + scale), mask, pe)
        x = x + gate.tanh() * self.attention_norm2(attended)
        return x + gate2.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + scale2)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, c: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c, width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(self.norm_final(x) * (1 + self.adaLN_modulation(c).unsqueeze(1)))


class NextDiT(nn.Module):
    """Args: ``z_image``: as Z-Image has it, with a clock of thousandths and lengths filled up; or as Lumina 2."""

    channels, patch_size = 4, 2

    def __init__(self, z_image: bool, width: int = 32, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        c = 24 if z_image else width
        key_heads = heads if z_image else 1
        self.time_scale, self.multiple = (1000.0, 8) if z_image else (1.0, 1)
        self.clip_text_pooled_proj = None
        self.x_embedder = nn.Linear(4 * self.channels, width)
        self.cap_embedder = nn.Sequential(RMSNorm(12), nn.Linear(12, width))
        self.t_embedder = TimestepEmbedder(width)
        self.t_embedder.mlp[2] = nn.Linear(width, c)
        self.noise_refiner, self.context_refiner, self.layers = (
            nn.ModuleList([Block(width, heads, key_heads, of, active=not z_image) for _ in range(depth)])
            for of in (c, None, c)
        )
        self.final_layer = FinalLayer(width, c, 4 * self.channels)
        self.rope_embedder = flux.Positions((4, 6, 6))
        self.x_pad_token, self.cap_pad_token = (nn.Parameter(torch.randn(1, width)) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
        """As :meth:`support.mmdit.MMDiT.forward`, but t is a sigma in [0, 1]; y is not used."""
        c = self.t_embedder((1.0 - t) * self.time_scale, x.dtype)
        patches, _, (h, w) = flux.Flux.patches(x)
        text, image, pe = self.tokens(patches, context, w)
        for block in self.context_refiner:
            text = block(text, None, pe[:, :, : text.shape[1]])
        for block in self.noise_refiner:
            image = block(image, None, pe[:, :, text.shape[1] :], c)
        joined = torch.cat([text, image], dim=1)
        for block in self.layers:
            joined = block(joined, None, pe, c)
        out = self.final_layer(joined, c)[:, text.shape[1] :]
        return -flux.Flux.picture(out, h, w)[:, :, : x.shape[-2], : x.shape[-1]]

    def tokens(self, patches: Tensor, context: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Text and picture, filled up, and the positions of both."""
        text = self._filled(self.cap_embedder(context), self.cap_pad_token)
        image = self._filled(self.x_embedder(patches), self.x_pad_token)
        number = torch.arange(image.shape[1])
        start = torch.full_like(number, text.shape[1] + 1)
        of_image = torch.stack([start, number // width, number % width], dim=-1)
        of_text = functional.pad(torch.arange(1, text.shape[1] + 1).unsqueeze(-1), (0, 2))
        return text, image, self.rope_embedder(torch.cat([of_text, of_image]).unsqueeze(0))

    def _filled(self, x: Tensor, pad: Tensor) -> Tensor:
        missing = -x.shape[1] % self.multiple
        return torch.cat([x, pad.unsqueeze(0).expand(len(x), missing, -1)], dim=1)


def naive(net: NextDiT, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor, _: None) -> Tensor:
    """Every token's modulation by itself: ``tokens`` ``(N, L)`` thousandths for the picture's, ``scalar`` ``(N,)`` for
    all others."""

    def vector(t: Tensor) -> Tensor:
        return net.t_embedder.mlp(sinusoid((1 - t / 1000) * net.time_scale, SINUSOID)).view(*t.shape, -1)

    patches, _ids, (h, w) = flux.Flux.patches(x)
    text, image, pe = net.tokens(patches, context, w)
    for block in net.context_refiner:
        text = block(text, None, pe[:, :, : text.shape[1]])
    rest = image.shape[1] - tokens.shape[1]
    of_image = vector(torch.cat([tokens, scalar[:, None].expand(-1, rest)], dim=1))
    of_all = torch.cat([vector(scalar[:, None]).expand(-1, text.shape[1], -1), of_image], dim=1)

    def modulated(block: Block, x: Tensor, c: Tensor, pe: Tensor) -> Tensor:
        chunks = block.adaLN_modulation[-1](functional.silu(c) if len(block.adaLN_modulation) > 1 else c)
        m = chunks.unflatten(-1, (4, -1)).unbind(dim=-2)
        out = block.attention_norm2(block.attention(block.attention_norm1(x) * (1 + m[0]), None, pe))
        x = x + torch.tanh(m[1]) * out
        return x + torch.tanh(m[3]) * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * (1 + m[2])))

    for block in net.noise_refiner:
        image = modulated(block, image, of_image, pe[:, :, text.shape[1] :])
    joined = torch.cat([text, image], dim=1)
    for block in net.layers:
        joined = modulated(block, joined, of_all, pe)
    scale = net.final_layer.adaLN_modulation[-1](functional.silu(of_all))
    out = net.final_layer.linear(net.final_layer.norm_final(joined) * (1 + scale))
    return -flux.Flux.picture(out[:, text.shape[1] :], h, w)[:, :, : x.shape[-2], : x.shape[-1]]
