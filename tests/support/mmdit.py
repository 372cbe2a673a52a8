"""A small MMDiT with the module layout of SD3 and SD3.5 medium, random weights.

Names and calls of the parts are what per-token conditioning and attention capture rely on: ``t_embedder.mlp``,
``joint_blocks`` of ``context_block`` and ``x_block`` with ``adaLN_modulation``, ``attn.qkv``, ``attn.ln_q``,
``attn.proj``, ``mlp`` (and ``attn2``), ``final_layer``; modulations are of a row of the batch, not of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.ldm_unet import sinusoid

SINUSOID = 32


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * self.weight


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """``(N, L, heads*d)`` all of them."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The projections around an attention, with or without normalised queries and keys."""

    def __init__(self, width: int, heads: int, normed: bool, last_of_text: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.ln_q = RMSNorm(width // heads) if normed else nn.Identity()
        self.ln_k = RMSNorm(width // heads) if normed else nn.Identity()
        if not last_of_text:
            self.proj = nn.Linear(width, width)

    def pre_attention(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(dim=2)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v.flatten(2)


class Block(nn.Module):
    """One stream of a joint block: 2, 6 or 9 modulations."""

    def __init__(self, width: int, heads: int, normed: bool, dual: bool = False, last_of_text: bool = False) -> None:
        super().__init__()
        self.x_block_self_attn = dual
        self.pre_only = last_of_text
        self.chunks = 9 if dual else 2 if last_of_text else 6
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads, normed, last_of_text)
        if dual:
            self.attn2 = Attention(width, heads, normed)
        if not last_of_text:
            self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
            self.mlp = nn.Sequential(
                nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width)
            )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, self.chunks * width))


class JointBlock(nn.Module):
    def __init__(self, width: int, heads: int, normed: bool, dual: bool, last: bool) -> None:
        super().__init__()
        self.context_block = Block(width, heads, normed, last_of_text=last)
        self.x_block = Block(width, heads, normed, dual=dual)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor | None, Tensor]:
        text, image = self.context_block, self.x_block
        text_mods = text.adaLN_modulation(c).chunk(text.chunks, dim=1)
        mods = image.adaLN_modulation(c).chunk(image.chunks, dim=1)
        text_qkv = text.attn.pre_attention(modulate(text.norm1(context), *text_mods[:2]))
        normed = image.norm1(x)
        qkv = image.attn.pre_attention(modulate(normed, *mods[:2]))
        joint = attend(*(torch.cat(pair, dim=1) for pair in zip(text_qkv, qkv, strict=True)), heads=image.attn.heads)
        own = joint[:, context.shape[1] :]
        x = x + mods[2].unsqueeze(1) * image.attn.proj(own)
        if image.x_block_self_attn:
            alone = attend(*image.attn2.pre_attention(modulate(normed, *mods[6:8])), heads=image.attn2.heads)
            x = x + mods[8].unsqueeze(1) * image.attn2.proj(alone)
        x = x + mods[5].unsqueeze(1) * image.mlp(modulate(image.norm2(x), *mods[3:5]))
        if text.pre_only:
            return None, x
        context = context + text_mods[2].unsqueeze(1) * text.attn.proj(joint[:, : context.shape[1]])
        context = context + text_mods[5].unsqueeze(1) * text.mlp(modulate(text.norm2(context), *text_mods[3:5]))
        return context, x


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class TimestepEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(sinusoid(t, SINUSOID).to(dtype))


class MMDiT(nn.Module):
    """Args: ``dual``: the first block has a second attention of the image alone; ``normed``: normalised q and k."""

    channels = 4

    def __init__(
        self, width: int = 32, heads: int = 4, depth: int = 3, dual: bool = False, normed: bool = False
    ) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(self.channels, width, 2, stride=2)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = nn.Sequential(nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width))
        self.context_embedder = nn.Linear(12, width)
        self.pos_embed = nn.Parameter(torch.randn(1, 40, 40, width))
        self.joint_blocks = nn.ModuleList(
            [JointBlock(width, heads, normed, dual and i == 0, i == depth - 1) for i in range(depth)]
        )
        self.final_layer = FinalLayer(width, 4 * self.channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
        """``x`` ``(N,4,H,W)``, t ``(N,)`` from 0 to 1000, y ``(N,10)``, context ``(N,T,12)``; odd sizes are padded."""
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, width % 2, 0, height % 2), mode="circular")
        tokens = self.x_embedder(x).permute(0, 2, 3, 1)
        h, w = tokens.shape[1:3]
        image = (tokens + self.pos_embed[:, :h, :w].to(x.dtype)).flatten(1, 2)
        c = self.t_embedder(t, x.dtype) + self.y_embedder(y)
        text = self.context_embedder(context)
        for block in self.joint_blocks:
            text, image = block(text, image, c=c)
        out = self.final_layer(image, c).unflatten(1, (h, w)).unflatten(-1, (2, 2, -1))
        return out.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)[:, :, :height, :width]
