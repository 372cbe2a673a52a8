"""A small Anima with the module layout of the real one (Cosmos Predict 2), random weights.

Names and calls of the parts are what per-token conditioning and attention capture rely on: ``t_embedder[1]``, which
answers with two vectors, ``t_embedding_norm``, ``blocks`` of ``self_attn``, ``cross_attn`` and ``mlp`` with their
``adaln_modulation_``, ``cross_attn.q_norm`` and ``k_norm``, ``final_layer``. The latent has a dimension of frames, and
tokens keep the picture's dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import flux
from support.ldm_unet import sinusoid
from support.mmdit import RMSNorm

_PARTS = ("self_attn", "cross_attn", "mlp")


class Timesteps(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        """``(N, T)`` -> ``(N, T, width)``."""
        return sinusoid(t, self.width).view(*t.shape, -1)


class TimestepEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, width, bias=False), nn.Linear(width, 3 * width, bias=False)

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        return sample, self.linear_2(functional.silu(self.linear_1(sample)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, text: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.output_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(text or width, width, bias=False) for _ in range(2))
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)

    def forward(self, x: Tensor, context: Tensor | None = None, pe: Tensor | None = None) -> Tensor:
        other = x if context is None else context
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)) for part in (self.q_proj(x), self.k_proj(other), self.v_proj(other))
        )
        q, k, v = (part.flatten(1, -3).transpose(1, 2) for part in (self.q_norm(q), self.k_norm(k), v))
        return self.output_proj(flux.attend(q, k, v, pe=pe if context is None else None))


def adaln(width: int, chunks: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, 8, bias=False), nn.Linear(8, chunks * width, bias=False))


def frames(x: Tensor) -> Tensor:
    """``(N, T, D)`` beside tokens ``(N, T, h, w, D)``."""
    return x[:, :, None, None]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, text: int) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads, text)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for part in _PARTS:
            setattr(self, f"layer_norm_{part}", nn.LayerNorm(width, elementwise_affine=False, eps=1e-6))
            setattr(self, f"adaln_modulation_{part}", adaln(width, 3))

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, pe: Tensor, added: Tensor) -> Tensor:
        for part in _PARTS:
            chunks = (getattr(self, f"adaln_modulation_{part}")(emb) + added).chunk(3, dim=-1)
            shift, scale, gate = map(frames, chunks)
            x = x + gate * self.part(part, getattr(self, f"layer_norm_{part}")(x) * (1 + scale) + shift, text, pe)
        return x

    def part(self, part: str, x: Tensor, text: Tensor, pe: Tensor) -> Tensor:
        if part == "mlp":
            return self.mlp(x)
        flat = x.flatten(1, 3)
        out = self.self_attn(flat, None, pe=pe) if part == "self_attn" else self.cross_attn(flat, text, pe=pe)
        return out.view(x.shape)


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out, bias=False)
        self.adaln_modulation = adaln(width, 2)

    def forward(self, x: Tensor, emb: Tensor, added: Tensor) -> Tensor:
        chunks = (self.adaln_modulation(emb) + added[..., : 2 * emb.shape[-1]]).chunk(2, dim=-1)
        shift, scale = map(frames, chunks)
        return self.linear(self.layer_norm(x) * (1 + scale) + shift)


class Anima(nn.Module):
    channels, patch_spatial = 4, 2

    def __init__(self, width: int = 32, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.pos_embedder = flux.Positions((4, 6, 6))
        self.t_embedder = nn.Sequential(Timesteps(width), TimestepEmbedding(width))
        self.t_embedding_norm = RMSNorm(width)
        self.x_embedder = nn.Linear(4 * self.channels, width)
        self.blocks = nn.ModuleList([Block(width, heads, 12) for _ in range(depth)])
        self.final_layer = FinalLayer(width, 4 * self.channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """As :meth:`support.flux.Flux.forward`; the latent ``(N,C,1,H,W)`` and the references ``(N,C,F,H,W)`` have
        frames; y is not used. Text comes to the blocks as a host has it, ``(N,1,T,12)``."""
        size, context = x.shape[-2:], context.unsqueeze(1)
        tokens, pe = self.tokens(x, reference)
        emb, added = self.t_embedder[1](self.t_embedder[0](t.unsqueeze(1)).to(x.dtype))
        emb = self.t_embedding_norm(emb)
        for block in self.blocks:
            tokens = block(tokens, emb, context, pe, added)
        return self.picture(self.final_layer(tokens, emb, added))[:, :, :1, : size[0], : size[1]]

    def tokens(self, x: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(N, T, h, w, D)`` and the positions of all."""
        x = x if reference is None else torch.cat([x, reference], dim=2)
        x = functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2, 0, 0), mode="circular")
        n, _, f, height, width = x.shape
        patches = functional.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (n, f))
        where = torch.meshgrid(*map(torch.arange, (f, height // 2, width // 2)), indexing="ij")
        ids = torch.stack(where, dim=-1).flatten(0, 2)
        return self.x_embedder(patches.permute(0, 1, 3, 4, 2)), self.pos_embedder(ids.unsqueeze(0))

    @staticmethod
    def picture(tokens: Tensor) -> Tensor:
        n, f = tokens.shape[:2]
        return (
            functional.pixel_shuffle(tokens.permute(0, 1, 4, 2, 3).flatten(0, 1), 2)
            .unflatten(0, (n, f))
            .transpose(1, 2)
        )


def naive(
    net: Anima, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor, reference: Tensor | None
) -> Tensor:
    """As :func:`support.nextdit.naive`."""
    size, (image, pe) = x.shape[-2:], net.tokens(x, reference)
    n, f, h, w, d = image.shape
    t = torch.cat([tokens, scalar[:, None].expand(-1, f * h * w - tokens.shape[1])], dim=1).view(n, f, h, w)
    wave = sinusoid(t / 1000, d).view(n, f, h, w, d)
    second = net.t_embedder[1]
    added, emb = second.linear_2(functional.silu(second.linear_1(wave))), functional.silu(net.t_embedding_norm(wave))
    for block in net.blocks:
        for part in _PARTS:
            down, up = getattr(block, f"adaln_modulation_{part}")[1:]
            shift, scale, gate = (up(down(emb)) + added).split(d, dim=-1)
            normed = getattr(block, f"layer_norm_{part}")(image)
            image = image + gate * block.part(part, normed + normed * scale + shift, context, pe)
    down, up = net.final_layer.adaln_modulation[1:]
    shift, scale = (up(down(emb)) + added[..., : 2 * d]).split(d, dim=-1)
    normed = net.final_layer.layer_norm(image)
    out = net.picture(net.final_layer.linear(normed + normed * scale + shift))
    return out[:, :, :1, : size[0], : size[1]]
