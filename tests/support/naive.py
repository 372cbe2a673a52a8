"""SD3, Flux, FLUX.2 and Chroma with a modulation for every single token, computed apart from the stand-ins' blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import chroma, flux, flux2, mmdit
from support.ldm_unet import sinusoid


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
    shift, scale = per_token(net.final_layer.adaLN_modulation[-1], c, 2)
    out = net.final_layer.linear(net.final_layer.norm_final(image) * (1 + scale) + shift)
    cells = torch.einsum("nhwpqc->nchpwq", out.view(len(out), h, w, 2, 2, -1))
    return cells.reshape(len(out), -1, 2 * h, 2 * w)[:, :, :height, :width]


def naive_flux(net, x: Tensor, scalar: Tensor, tokens: Tensor, y: Tensor, context: Tensor, reference) -> Tensor:
    """Flux, FLUX.2 and Chroma."""
    patches, where, (h, w) = net.patches(x)
    ids = [[0, 0, 0]] * context.shape[1] + where.int().tolist()
    if reference is not None:
        patches = torch.cat([patches, reference], dim=1)
        ids += [[1, i, i] for i in range(reference.shape[1])]
        tokens = torch.cat([tokens, scalar[:, None].expand(-1, reference.shape[1])], dim=1)
    pe = net.pe_embedder(torch.tensor(ids).expand(len(x), -1, -1))
    img, txt = net.img_in(patches), net.txt_in(context)
    of = chroma_modulations if isinstance(net, chroma.Chroma) else flux_modulations
    if isinstance(net, flux2.Flux2):
        of = flux2_modulations
    modulations = of(net, y)
    of_image, of_text = modulations(tokens), modulations(scalar[:, None])
    for i, block in enumerate(net.double_blocks):
        m, n = of_image("img", i), of_text("txt", i)
        image = block.img_attn.parts(block.img_norm1(img) * (1 + m[1]) + m[0])
        text = block.txt_attn.parts(block.txt_norm1(txt) * (1 + n[1]) + n[0])
        out = flux.attend(*(torch.cat(pair, dim=2) for pair in zip(text, image, strict=True)), pe=pe)
        img = img + m[2] * block.img_attn.proj(out[:, txt.shape[1] :])
        img = img + m[5] * block.img_mlp(block.img_norm2(img) * (1 + m[4]) + m[3])
        txt = txt + n[2] * block.txt_attn.proj(out[:, : txt.shape[1]])
        txt = txt + n[5] * block.txt_mlp(block.txt_norm2(txt) * (1 + n[4]) + n[3])
    joined = torch.cat([txt, img], dim=1)
    of_all = modulations(torch.cat([scalar[:, None].expand(-1, txt.shape[1]), tokens], dim=1))
    for i, block in enumerate(net.single_blocks):
        m = of_all("single", i)
        hidden = block.linear1(block.pre_norm(joined) * (1 + m[1]) + m[0])
        qkv, hidden = hidden.split([3 * block.width, 2 * block.width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
        out = flux.attend(*block.norm(q, k, v), v, pe=pe)
        joined = joined + m[2] * block.linear2(torch.cat([out, functional.gelu(hidden)], dim=-1))
    shift, scale = of_image("final", 0)
    out = net.final_layer.linear(net.final_layer.norm_final(joined[:, txt.shape[1] :]) * (1 + scale) + shift)
    return net.picture(out, h, w)[:, :, : x.shape[-2], : x.shape[-1]]


Modulations = Callable[[str, int], tuple[Tensor, ...]]


def flux_modulations(net, y: Tensor) -> Callable[[Tensor], Modulations]:
    rest = net.guidance_in(sinusoid(torch.full((len(y),), 3500.0), mmdit.SINUSOID)) + net.vector_in(y)

    def of(t: Tensor) -> Modulations:
        c = net.time_in(sinusoid(t, mmdit.SINUSOID)).view(*t.shape, -1) + rest[:, None]

        def modulation(kind: str, i: int) -> tuple[Tensor, ...]:
            if kind == "final":
                return per_token(net.final_layer.adaLN_modulation[-1], c, 2)
            if kind == "single":
                return per_token(net.single_blocks[i].modulation.lin, c, 3)
            return per_token(getattr(net.double_blocks[i], f"{kind}_mod").lin, c, 6)

        return modulation

    return of


def flux2_modulations(net, y: Tensor) -> Callable[[Tensor], Modulations]:
    def of(t: Tensor) -> Modulations:
        c = net.time_in(sinusoid(t, mmdit.SINUSOID)).view(*t.shape, -1)
        layers = {
            "img": (net.double_stream_modulation_img.lin, 6),
            "txt": (net.double_stream_modulation_txt.lin, 6),
            "single": (net.single_stream_modulation.lin, 3),
            "final": (net.final_layer.adaLN_modulation[-1], 2),
        }
        return lambda kind, i: per_token(layers[kind][0], c, layers[kind][1])

    return of


def chroma_modulations(net, y: Tensor) -> Callable[[Tensor], Modulations]:
    singles, depth = len(net.single_blocks), len(net.double_blocks)

    def of(t: Tensor) -> Modulations:
        vectors = net.distilled_guidance_layer(chroma.layer_input(t, net.vectors))

        def modulation(kind: str, i: int) -> tuple[Tensor, ...]:
            first, count = {
                "single": (3 * i, 3),
                "img": (3 * singles + 6 * i, 6),
                "txt": (3 * singles + 6 * depth + 6 * i, 6),
                "final": (net.vectors - 2, 2),
            }[kind]
            return vectors[..., first : first + count, :].unbind(dim=-2)

        return modulation

    return of
