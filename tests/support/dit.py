"""The stand-in diffusion transformers behind one signature, and their naive per-token counterparts.

The naive ones compute a modulation for every single token, with code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import flux, mmdit
from support.ldm_unet import sinusoid

TEXT_TOKENS = 7
NAMES = ["sd3", "sd3.5", "flux", "flux objects"]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    made = {
        "sd3": mmdit.MMDiT,
        "sd3.5": lambda: mmdit.MMDiT(dual=True, normed=True),
        "flux": flux.Flux,
        "flux objects": lambda: flux.Flux(flat=False),
    }[name]()
    # Random weights attend to everything alike and modulate by little, which no test could tell apart.
    for key, weight in made.named_parameters():
        if "qkv" in key or "linear1" in key or "mod" in key or "adaLN" in key:
            weight.data *= 2
    return made.eval().requires_grad_(False)


class DiT:
    """One of the networks; t in thousandths, whatever the network takes."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.name = name
        self.net = network(name)
        if dtype != torch.float32:
            self.net = type(self.net)(**self._arguments()).to(dtype).eval().requires_grad_(False)
            self.net.load_state_dict(network(name).state_dict())
        self.flux = name.startswith("flux")
        self.dtype = dtype

    def _arguments(self) -> dict[str, bool]:
        return {"sd3.5": {"dual": True, "normed": True}, "flux objects": {"flat": False}}.get(self.name, {})

    @property
    def modulations(self) -> int:
        """Of image tokens: one per block, one in the final layer."""
        net = self.net
        return 1 + (len(net.double_blocks) + len(net.single_blocks) if self.flux else len(net.joint_blocks))

    def texts(self, prompts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pooled and per-token text of each row."""
        pooled = torch.stack([normal(10, seed=100 + p) for p in prompts])
        tokens = torch.stack([normal(TEXT_TOKENS, 12, seed=200 + p) for p in prompts])
        return pooled.to(self.dtype), tokens.to(self.dtype)

    def __call__(
        self, x: Tensor, t: float | Tensor, prompts: Sequence[int] = (), reference: Tensor | None = None
    ) -> Tensor:
        y, context = self.texts(prompts or range(len(x)))
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        if self.flux:
            return self.net(x.to(self.dtype), t / 1000, y, context, reference)
        return self.net(x.to(self.dtype), t, y, context)

    def naive(
        self, x: Tensor, t: float, tokens: Tensor, prompts: Sequence[int] = (), reference: Tensor | None = None
    ) -> Tensor:
        """``t`` for text and reference, ``tokens`` ``(N, L)`` the timestep of each image token."""
        y, context = self.texts(prompts or range(len(x)))
        scalar = torch.full((len(x),), float(t))
        if self.flux:
            return naive_flux(self.net, x, scalar, tokens, y, context, reference)
        return naive_mmdit(self.net, x, scalar, tokens, y, context)


def first_of_patches(maps: Tensor) -> Tensor:
    """``(N,1,H,W)`` -> ``(N, L)``: the first pixel of every 2x2 patch, row by row."""
    return maps[:, 0, ::2, ::2].flatten(1)


def per_token(layer: nn.Module, c: Tensor, chunks: int) -> tuple[Tensor, ...]:
    return layer(functional.silu(c)).chunk(chunks, dim=-1)


def naive_mmdit(net, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    padded = functional.pad(x, (0, width % 2, 0, height % 2), mode="circular")
    grid = net.x_embedder(padded).permute(0, 2, 3, 1)
    h, w = grid.shape[1:3]
    image = (grid + net.pos_embed[:, :h, :w]).flatten(1, 2)
    c_text = (net.t_embedder.mlp(sinusoid(scalar, mmdit.SINUSOID)) + net.y_embedder(y))[:, None]
    embedded = net.t_embedder.mlp(sinusoid(tokens, mmdit.SINUSOID)).view(*tokens.shape, -1)
    c = embedded + net.y_embedder(y)[:, None]
    text = net.context_embedder(context)
    for block in net.joint_blocks:
        ours, theirs = block.x_block, block.context_block
        m = per_token(ours.adaLN_modulation[-1], c, 9 if ours.x_block_self_attn else 6)
        n = per_token(theirs.adaLN_modulation[-1], c_text, 2 if theirs.pre_only else 6)
        normed = ours.norm1(image)
        qkv = ours.attn.pre_attention(normed * (1 + m[1]) + m[0])
        text_qkv = theirs.attn.pre_attention(theirs.norm1(text) * (1 + n[1]) + n[0])
        joint = [torch.cat(pair, dim=1) for pair in zip(text_qkv, qkv, strict=True)]
        out = mmdit.attend(*joint, heads=ours.attn.heads)
        image = image + m[2] * ours.attn.proj(out[:, text.shape[1] :])
        if ours.x_block_self_attn:
            alone = mmdit.attend(*ours.attn2.pre_attention(normed * (1 + m[7]) + m[6]), heads=ours.attn2.heads)
            image = image + m[8] * ours.attn2.proj(alone)
        image = image + m[5] * ours.mlp(ours.norm2(image) * (1 + m[4]) + m[3])
        if not theirs.pre_only:
            text = text + n[2] * theirs.attn.proj(out[:, : text.shape[1]])
            text = text + n[5] * theirs.mlp(theirs.norm2(text) * (1 + n[4]) + n[3])
    return naive_end(net, image, c, h, w, order="pqc")[:, :, :height, :width]


def naive_flux(net, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor, reference) -> Tensor:
    height, width = x.shape[-2:]
    padded = functional.pad(x, (0, width % 2, 0, height % 2), mode="circular")
    h, w = padded.shape[-2] // 2, padded.shape[-1] // 2
    patches = functional.pixel_unshuffle(padded, 2).flatten(2).transpose(1, 2)
    ids = [[0, 0, 0]] * context.shape[1] + [[0, row, column] for row in range(h) for column in range(w)]
    if reference is not None:
        patches = torch.cat([patches, reference], dim=1)
        ids += [[1, i, i] for i in range(reference.shape[1])]
        tokens = torch.cat([tokens, scalar[:, None].expand(-1, reference.shape[1])], dim=1)
    pe = net.pe_embedder(torch.tensor(ids).expand(len(x), -1, -1))
    rest = net.guidance_in(sinusoid(torch.full_like(scalar, 3500.0), mmdit.SINUSOID)) + net.vector_in(y)
    c_text = (net.time_in(sinusoid(scalar, mmdit.SINUSOID)) + rest)[:, None]
    c = net.time_in(sinusoid(tokens, mmdit.SINUSOID)).view(*tokens.shape, -1) + rest[:, None]
    img, txt = net.img_in(patches), net.txt_in(context)
    for block in net.double_blocks:
        m, n = per_token(block.img_mod.lin, c, 6), per_token(block.txt_mod.lin, c_text, 6)
        image = block.img_attn.parts(block.img_norm1(img) * (1 + m[1]) + m[0])
        text = block.txt_attn.parts(block.txt_norm1(txt) * (1 + n[1]) + n[0])
        out = flux.attend(*(torch.cat(pair, dim=2) for pair in zip(text, image, strict=True)), pe=pe)
        img = img + m[2] * block.img_attn.proj(out[:, txt.shape[1] :])
        img = img + m[5] * block.img_mlp(block.img_norm2(img) * (1 + m[4]) + m[3])
        txt = txt + n[2] * block.txt_attn.proj(out[:, : txt.shape[1]])
        txt = txt + n[5] * block.txt_mlp(block.txt_norm2(txt) * (1 + n[4]) + n[3])
    joined = torch.cat([txt, img], dim=1)
    everything = torch.cat([c_text.expand(-1, txt.shape[1], -1), c], dim=1)
    for block in net.single_blocks:
        m = per_token(block.modulation.lin, everything, 3)
        hidden = block.linear1(block.pre_norm(joined) * (1 + m[1]) + m[0])
        qkv, hidden = hidden.split([3 * block.width, 2 * block.width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
        out = flux.attend(*block.norm(q, k, v), v, pe=pe)
        joined = joined + m[2] * block.linear2(torch.cat([out, functional.gelu(hidden)], dim=-1))
    image = joined[:, txt.shape[1] : txt.shape[1] + h * w]
    return naive_end(net, image, c[:, : h * w], h, w, order="cpq")[:, :, :height, :width]


def naive_end(net, image: Tensor, c: Tensor, h: int, w: int, order: str) -> Tensor:
    shift, scale = per_token(net.final_layer.adaLN_modulation[-1], c, 2)
    out = net.final_layer.linear(net.final_layer.norm_final(image) * (1 + scale) + shift)
    if order == "cpq":
        return functional.pixel_shuffle(out.transpose(1, 2).unflatten(-1, (h, w)), 2)
    cells = out.view(len(out), h, w, 2, 2, -1)
    return torch.einsum("nhwpqc->nchpwq", cells).reshape(len(out), -1, 2 * h, 2 * w)
