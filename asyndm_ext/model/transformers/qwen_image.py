"""Qwen-Image and Qwen-Image-Edit: blocks of two streams, all through."""

from __future__ import annotations

from typing import Any

from asyndm_ext.model.dit_time import AdaLN, DiTTimeConditioning
from asyndm_ext.model.token_modulation import Input, Modulation, Output
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown


def is_qwen_image(network: Any) -> bool:
    block = next(iter(getattr(network, "transformer_blocks", [])), None)
    last = getattr(network, "norm_out", None)
    known = hasattr(block, "img_mod") and hasattr(getattr(block, "attn", None), "norm_added_k")
    return known and hasattr(network, "time_text_embed") and hasattr(last, "silu") and hasattr(last, "linear")


def layout(network: Any) -> Layout:
    adaln = [AdaLN.of(block.img_mod, _modulation(block)) for block in network.transformer_blocks]
    last = network.norm_out
    adaln.append(AdaLN(last.silu, last.linear, Modulation((Input(network.proj_out, shift=1, scale=0),))))
    patch = int(network.patch_size)
    return Layout(
        patch,
        lambda: DiTTimeConditioning(network.time_text_embed.timestep_embedder, adaln, patch),
        attentions=tuple(_attention(block.attn) for block in network.transformer_blocks),
        positions=network.pe_embedder,
    )


def _modulation(block: Any) -> Modulation:
    # The attention takes both streams, by keyword.
    inputs = (Input(block.attn, 0, 1, argument="hidden_states"), Input(block.img_mlp, 3, 4))
    return Modulation(inputs, (Output(block.attn.to_out[0], 2), Output(block.img_mlp, 5)))


def _attention(attn: Any) -> Attention:
    return (
        Shown(attn.norm_q, ("queries",)),
        Shown(attn.norm_k, ("keys",)),
        Shown(attn.norm_added_k, ("text_keys",)),
    )
