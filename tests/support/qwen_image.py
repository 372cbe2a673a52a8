"""A small Qwen-Image with the module layout of the real one, random weights.

Names and calls of the parts are what per-token conditioning and attention capture rely on:
``time_text_embed.timestep_embedder``, ``pe_embedder``, ``transformer_blocks`` with ``img_mod``, ``img_mlp`` and
``attn`` (called by keywords; with ``norm_q``, ``norm_k``, ``norm_added_k``, ``to_out``), ``norm_out`` with ``silu`` and
``linear``,
``proj_out``. The latent has a dimension of frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import flux
from support.ldm_unet import sinusoid
from support.mmdit import SINUSOID, RMSNorm, modulate


class TimeEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = flux.Embedder(SINUSOID, width)

    def forward(self, t: Tensor, like: Tensor) -> Tensor:
        return self.timestep_embedder(sinusoid(1000 * t, SINUSOID).to(like.dtype))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            setattr(self, name, nn.Linear(width, width))
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            setattr(self, name, RMSNorm(width // heads))
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout(0.0)])
        self.to_add_out = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        image = [f(hidden_states).unflatten(-1, (self.heads, -1)) for f in (self.to_q, self.to_k, self.to_v)]
        projections = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
        text = [f(encoder_hidden_states).unflatten(-1, (self.heads, -1)) for f in projections]
        image[:2] = self.norm_q(image[0]), self.norm_k(image[1])
        text[:2] = self.norm_added_q(text[0]), self.norm_added_k(text[1])
        out = flux.attend(*(torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(text, image, strict=True)), pe=pe)
        own = out[:, encoder_hidden_states.shape[1] :]
        return self.to_out[1](self.to_out[0](own)), self.to_add_out(out[:, : encoder_hidden_states.shape[1]])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        for stream in ("img", "txt"):
            setattr(self, f"{stream}_mod", nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width)))
            setattr(self, f"{stream}_norm1", nn.LayerNorm(width, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_norm2", nn.LayerNorm(width, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_mlp", flux.mlp(width))
        self.attn = Attention(width, heads)

    def forward(self, img: Tensor, txt: Tensor, temb: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        m, n = (mod(temb).chunk(6, dim=-1) for mod in (self.img_mod, self.txt_mod))
        own, of_text = self.attn(
            hidden_states=modulate(self.img_norm1(img), m[0], m[1]),
            encoder_hidden_states=modulate(self.txt_norm1(txt), n[0], n[1]),
            pe=pe,
        )
        img, txt = img + m[2].unsqueeze(1) * own, txt + n[2].unsqueeze(1) * of_text
        img = img + m[5].unsqueeze(1) * self.img_mlp(modulate(self.img_norm2(img), m[3], m[4]))
        return img, txt + n[5].unsqueeze(1) * self.txt_mlp(modulate(self.txt_norm2(txt), n[3], n[4]))


class LastLayer(nn.Module):
    """Its scale comes first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.silu, self.linear = nn.SiLU(), nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.linear(self.silu(c)).chunk(2, dim=1)
        return modulate(self.norm(x), shift, scale)


class QwenImage(nn.Module):
    channels, patch_size = 4, 2

    def __init__(self, width: int = 32, heads: int = 2, depth: int = 3) -> None:
        super().__init__()
        self.pe_embedder = flux.Positions((4, 6, 6))
        self.time_text_embed = TimeEmbed(width)
        self.txt_norm, self.txt_in = RMSNorm(12), nn.Linear(12, width)
        self.img_in = nn.Linear(4 * self.channels, width)
        self.transformer_blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm_out, self.proj_out = LastLayer(width), nn.Linear(width, 4 * self.channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """As :meth:`support.flux.Flux.forward`, but the latent ``(N,C,1,H,W)`` has frames; y is not used."""
        img, txt, pe, (h, w) = self.tokens(x[:, :, 0], context, reference)
        temb = self.time_text_embed(t, img)
        for block in self.transformer_blocks:
            img, txt = block(img, txt, temb, pe)
        out = self.proj_out(self.norm_out(img, temb))
        return flux.Flux.picture(out, h, w)[:, :, None, : x.shape[-2], : x.shape[-1]]

    def tokens(
        self, x: Tensor, context: Tensor, reference: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
        patches, ids, size = flux.Flux.patches(x)
        if reference is not None:
            where = torch.arange(reference.shape[1]).float()
            patches = torch.cat([patches, reference], dim=1)
            ids = torch.cat([ids, torch.stack([torch.ones_like(where), where, where], dim=-1)])
        of_text = torch.arange(5.0, 5.0 + context.shape[1]).unsqueeze(-1).expand(-1, 3)
        pe = self.pe_embedder(torch.cat([of_text, ids]).unsqueeze(0))
        return self.img_in(patches), self.txt_in(self.txt_norm(context)), pe, size


def naive(
    net: QwenImage, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor, reference: Tensor | None
) -> Tensor:
    """As :func:`support.nextdit.naive`."""

    def vector(t: Tensor) -> Tensor:
        return functional.silu(net.time_text_embed.timestep_embedder(sinusoid(t, SINUSOID)).view(*t.shape, -1))

    img, txt, pe, (h, w) = net.tokens(x[:, :, 0], context, reference)
    rest = scalar[:, None].expand(-1, img.shape[1] - tokens.shape[1])
    of_image, of_text = vector(torch.cat([tokens, rest], dim=1)), vector(scalar[:, None])
    for block in net.transformer_blocks:
        m, n = (mod[1](c).chunk(6, dim=-1) for mod, c in ((block.img_mod, of_image), (block.txt_mod, of_text)))
        ours, theirs = block.img_norm1(img) * (1 + m[1]) + m[0], block.txt_norm1(txt) * (1 + n[1]) + n[0]
        own, words = block.attn(hidden_states=ours, encoder_hidden_states=theirs, pe=pe)
        img, txt = img + m[2] * own, txt + n[2] * words
        img = img + m[5] * block.img_mlp(block.img_norm2(img) * (1 + m[4]) + m[3])
        txt = txt + n[5] * block.txt_mlp(block.txt_norm2(txt) * (1 + n[4]) + n[3])
    scale, shift = net.norm_out.linear(of_image).chunk(2, dim=-1)
    out = net.proj_out(net.norm_out.norm(img) * (1 + scale) + shift)
    return flux.Flux.picture(out, h, w)[:, :, None, : x.shape[-2], : x.shape[-1]]
