"""Diffusion transformers of SD3's and Flux's shape and module layout, with random weights.

As in :mod:`asyndm_ext.bench.unet`, the parts are called as in the WebUIs' networks. A latent's sides are even here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyndm_ext.model.timesteps import timestep_embedding


@dataclass(frozen=True)
class DiTShape:
    """The numbers of a model card.

    Attributes:
        width: channels of a token; ``heads`` of an attention.
        depth: joint blocks (SD3), or double ones (Flux). singles: single ones, Flux's only.
        context: width of the text's tokens. labels: of the pooled text.
        axes: rotary channels per axis, Flux's only.
        channels: of the latent.
        hidden: of a token in the MLPs, in widths.
        sinusoid: numbers of a timestep's embedding.
        positions: on a side of the largest picture, in tokens. SD3's only.
        normed: attention of normalised queries and keys; dual: the first block attends to the image alone, too; cut:
            the last block leaves the text as it is. SD3's only.
    """

    width: int
    heads: int
    depth: int
    context: int
    labels: int
    singles: int = 0
    axes: tuple[int, ...] = ()
    channels: int = 16
    hidden: int = 4
    sinusoid: int = 256
    positions: int = 96
    normed: bool = False
    dual: bool = False
    cut: bool = False


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def gelu_mlp(width: int, hidden: int = 4) -> nn.Sequential:
    inside = hidden * width
    return nn.Sequential(nn.Linear(width, inside), nn.GELU(approximate="tanh"), nn.Linear(inside, width))


def _silu_mlp(inside: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, width), nn.SiLU(), nn.Linear(width, width))


def _adaln(width: int, chunks: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, chunks * width))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


Norm = Callable[[int], nn.Module]
Sinusoid = Callable[[Tensor, int], Tensor]


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(functional, "rms_norm"):
            return functional.rms_norm(x, x.shape[-1:], self.scale, 1e-6)
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * self.scale  # torch before 2.4


# -- SD3


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """``(N, L, heads*d)`` all of them."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class JointAttention(nn.Module):
    """The projections around an attention; of a text that ends here without the last one."""

    def __init__(self, width: int, heads: int, norm: Norm | None = None, pre_only: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.ln_q, self.ln_k = (norm(width // heads) if norm else nn.Identity() for _ in range(2))
        if not pre_only:
            self.proj = nn.Linear(width, width)

    def pre_attention(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(dim=2)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v.flatten(2)


class Stream(nn.Module):
    """One stream of a joint block: 2, 6 or 9 modulations."""

    def __init__(self, shape: DiTShape, norm: Norm | None, dual: bool = False, pre_only: bool = False) -> None:
        super().__init__()
        width = shape.width
        self.x_block_self_attn, self.pre_only = dual, pre_only
        self.chunks = 9 if dual else 2 if pre_only else 6
        self.norm1 = _norm(width)
        self.attn = JointAttention(width, shape.heads, norm, pre_only)
        if dual:
            self.attn2 = JointAttention(width, shape.heads, norm)
        if not pre_only:
            self.norm2, self.mlp = _norm(width), gelu_mlp(width, shape.hidden)
        self.adaLN_modulation = _adaln(width, self.chunks)

    def modulations(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.adaLN_modulation(c).chunk(self.chunks, dim=1)

    def after(self, x: Tensor, attended: Tensor, mods: tuple[Tensor, ...], more: Tensor | None = None) -> Tensor:
        x = x + mods[2].unsqueeze(1) * self.attn.proj(attended)
        if more is not None:
            x = x + mods[8].unsqueeze(1) * self.attn2.proj(more)
        return x + mods[5].unsqueeze(1) * self.mlp(modulate(self.norm2(x), *mods[3:5]))


class JointBlock(nn.Module):
    def __init__(self, shape: DiTShape, norm: Norm | None, dual: bool, cut: bool) -> None:
        super().__init__()
        self.context_block = Stream(shape, norm, pre_only=cut)
        self.x_block = Stream(shape, norm, dual)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor | None, Tensor]:
        text, image = self.context_block, self.x_block
        text_mods, mods = text.modulations(c), image.modulations(c)
        text_qkv = text.attn.pre_attention(modulate(text.norm1(context), *text_mods[:2]))
        normed = image.norm1(x)
        qkv = image.attn.pre_attention(modulate(normed, *mods[:2]))
        q, k, v = (torch.cat(pair, dim=1) for pair in zip(text_qkv, qkv, strict=True))
        joint = attend(q, k, v, image.attn.heads)
        more, tokens = None, context.shape[1]
        if image.x_block_self_attn:
            more = attend(*image.attn2.pre_attention(modulate(normed, *mods[6:8])), heads=image.attn2.heads)
        x = image.after(x, joint[:, tokens:], mods, more)
        return None if text.pre_only else text.after(context, joint[:, :tokens], text_mods), x


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final, self.linear = _norm(width), nn.Linear(width, out)
        self.adaLN_modulation = _adaln(width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class TimestepEmbedder(nn.Module):
    def __init__(self, width: int, size: int, sinusoid: Sinusoid) -> None:
        super().__init__()
        self.size, self.sinusoid = size, sinusoid
        self.mlp = _silu_mlp(size, width)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(self.sinusoid(t, self.size).to(dtype))


class MMDiT(nn.Module):
    """``(N,C,H,W)``, timesteps ``(N,)`` in thousandths, context ``(N,T,D)``, pooled text ``(N,labels)``."""

    norm: Norm = RMSNorm
    sinusoid: Sinusoid = staticmethod(timestep_embedding)

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        width, norm = shape.width, self.norm if shape.normed else None
        self.shape = shape
        self.x_embedder = nn.Conv2d(shape.channels, width, 2, stride=2)
        self.t_embedder = TimestepEmbedder(width, shape.sinusoid, self.sinusoid)
        self.y_embedder = _silu_mlp(shape.labels, width)
        self.context_embedder = nn.Linear(shape.context, width)
        self.pos_embed = nn.Parameter(torch.randn(1, shape.positions, shape.positions, width))
        last = shape.depth - 1
        self.joint_blocks = nn.ModuleList(
            [JointBlock(shape, norm, shape.dual and i == 0, shape.cut and i == last) for i in range(shape.depth)]
        )
        self.final_layer = FinalLayer(width, 4 * shape.channels)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, y: Tensor) -> Tensor:
        tokens = self.x_embedder(x)
        h, w = tokens.shape[-2:]
        image = (tokens.permute(0, 2, 3, 1) + self.pos_embed[:, :h, :w]).flatten(1, 2)
        c = self.t_embedder(t, x.dtype) + self.y_embedder(y)
        text = self.context_embedder(context)
        for block in self.joint_blocks:
            text, image = block(text, image, c=c)
        patches = self.final_layer(image, c).unflatten(1, (h, w)).unflatten(-1, (2, 2, -1))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


# -- Flux


class Embedder(nn.Module):
    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(inside, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(functional.silu(self.in_layer(x)))


class Positions(nn.Module):
    """Rotary matrices: ids ``(N,L,axes)`` -> ``(N,1,L,d/2,2,2)``."""

    def __init__(self, axes: tuple[int, ...], theta: float = 10000.0) -> None:
        super().__init__()
        self.axes, self.theta = axes, theta

    def forward(self, ids: Tensor) -> Tensor:
        parts = []
        for axis, dim in enumerate(self.axes):
            omega = self.theta ** (-torch.arange(0, dim, 2, device=ids.device) / dim)
            angle = ids[..., axis, None].float() * omega
            parts.append(
                torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).unflatten(-1, (2, 2))
            )
        return torch.cat(parts, dim=-3).unsqueeze(1)


def turned(x: Tensor, pe: Tensor | None) -> Tensor:
    if pe is None:
        return x
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).reshape(x.shape).type_as(x)


def attend_turned(q: Tensor, k: Tensor, v: Tensor, pe: Tensor | None) -> Tensor:
    """``(N, heads, L, d)`` -> ``(N, L, heads*d)``."""
    out = functional.scaled_dot_product_attention(turned(q, pe), turned(k, pe), v)
    return out.transpose(1, 2).flatten(2)


class QKNorm(nn.Module):
    def __init__(self, width: int, norm: Norm = RMSNorm) -> None:
        super().__init__()
        self.query_norm, self.key_norm = norm(width), norm(width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class FluxAttention(nn.Module):
    def __init__(self, width: int, heads: int, norm: Norm = RMSNorm) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = QKNorm(width // heads, norm)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return *self.norm(q, k, v), v


class Modulation(nn.Module):
    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(width, 3 * count * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(functional.silu(vec))[:, None, :].chunk(3 * self.count, dim=-1)


class DoubleBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(width, 2), Modulation(width, 2)
        self.img_attn, self.txt_attn = FluxAttention(width, heads), FluxAttention(width, heads)
        self.img_norm1, self.img_norm2, self.txt_norm1, self.txt_norm2 = (_norm(width) for _ in range(4))
        self.img_mlp, self.txt_mlp = gelu_mlp(width), gelu_mlp(width)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        m, n = self.img_mod(vec), self.txt_mod(vec)
        image = self.img_attn.parts((1 + m[1]) * self.img_norm1(img) + m[0])
        text = self.txt_attn.parts((1 + n[1]) * self.txt_norm1(txt) + n[0])
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(text, image, strict=True))
        out = attend_turned(q, k, v, pe)
        img = img + m[2] * self.img_attn.proj(out[:, txt.shape[1] :])
        img = img + m[5] * self.img_mlp((1 + m[4]) * self.img_norm2(img) + m[3])
        txt = txt + n[2] * self.txt_attn.proj(out[:, : txt.shape[1]])
        return img, txt + n[5] * self.txt_mlp((1 + n[4]) * self.txt_norm2(txt) + n[3])


class SingleBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.modulation = Modulation(width, 1)
        self.pre_norm = _norm(width)
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)
        self.norm = QKNorm(width // heads)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        entering = (1 + scale) * self.pre_norm(x) + shift
        qkv, hidden = self.linear1(entering).split([3 * self.width, 4 * self.width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.norm(q, k, v)
        out = attend_turned(q, k, v, pe)
        return x + gate * self.linear2(torch.cat([out, functional.gelu(hidden, approximate="tanh")], dim=-1))


class Flux(nn.Module):
    """As :class:`MMDiT`; guidance is an input, so there is no second row for it."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        width = shape.width
        self.shape = shape
        self.pe_embedder = Positions(shape.axes)
        self.img_in, self.txt_in = nn.Linear(4 * shape.channels, width), nn.Linear(shape.context, width)
        self.time_in, self.guidance_in = (Embedder(shape.sinusoid, width) for _ in range(2))
        self.vector_in = Embedder(shape.labels, width)
        self.double_blocks = nn.ModuleList([DoubleBlock(width, shape.heads) for _ in range(shape.depth)])
        self.single_blocks = nn.ModuleList([SingleBlock(width, shape.heads) for _ in range(shape.singles)])
        self.final_layer = FinalLayer(width, 4 * shape.channels)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, y: Tensor) -> Tensor:
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        img = self.img_in(functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2))
        txt = self.txt_in(context)
        ids = torch.zeros(context.shape[1] + h * w, len(self.shape.axes), device=x.device)
        ids[context.shape[1] :, 1] = torch.arange(h, device=x.device).repeat_interleave(w)
        ids[context.shape[1] :, 2] = torch.arange(w, device=x.device).repeat(h)
        pe = self.pe_embedder(ids.expand(len(x), -1, -1))
        vec = self.time_in(timestep_embedding(t, self.shape.sinusoid).to(x.dtype)) + self.vector_in(y)
        vec = vec + self.guidance_in(timestep_embedding(torch.full_like(t, 3500.0), self.shape.sinusoid).to(x.dtype))
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe)
        joined = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            joined = block(joined, vec, pe)
        return _unpatch(self.final_layer(joined[:, txt.shape[1] :], vec), h, w)


def _unpatch(tokens: Tensor, h: int, w: int) -> Tensor:
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(-1, (h, w)), 2)
