"""SD3 and SD3.5: blocks of a context block and an x block (MMDiT; Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asyndm_ext.model.dit_time import AdaLN, DiTTimeConditioning
from asyndm_ext.model.token_modulation import Input, Modulation, Output
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown
from asyndm_ext.model.unet_time import UnsupportedModel


def is_mmdit(network: Any) -> bool:
    return hasattr(network, "joint_blocks") and hasattr(network, "t_embedder")


def layout(network: Any) -> Layout:
    """Raises UnsupportedModel: a variant that is not known."""
    if getattr(network, "register_length", 0):
        raise UnsupportedModel(f"{type(network).__name__} puts register tokens before the text")
    last = network.final_layer
    adaln = [*_adaln(network), AdaLN.of(last.adaLN_modulation, Modulation((Input(last.linear, 0, 1),)))]
    return Layout(
        patch=2,
        time=lambda: DiTTimeConditioning(network.t_embedder.mlp, adaln),
        # SD3.5 medium's second attention, of the image to itself, has no text and does not count.
        attentions=tuple(_attention(joint) for joint in network.joint_blocks),
    )


def _adaln(network: Any) -> Iterator[AdaLN]:
    for joint in network.joint_blocks:
        block = joint.x_block
        # The order of the chunks in pre_attention and, with a second attention of the image alone (SD3.5 medium), in
        # pre_attention_x.
        inputs = [Input(block.attn.qkv, 0, 1), Input(block.mlp, 3, 4)]
        outputs = [Output(block.attn.proj, 2), Output(block.mlp, 5)]
        if getattr(block, "x_block_self_attn", False):
            inputs.append(Input(block.attn2.qkv, 6, 7))
            outputs.append(Output(block.attn2.proj, 8))
        elif getattr(block, "scale_mod_only", False):
            raise UnsupportedModel(f"{type(network).__name__} modulates without shifts")
        yield AdaLN.of(block.adaLN_modulation, Modulation(tuple(inputs), tuple(outputs)))


def _attention(joint: Any) -> Attention:
    return (
        Shown(joint.context_block.attn.ln_k, ("text_keys",)),
        Shown(joint.x_block.attn.ln_q, ("queries",)),
        Shown(joint.x_block.attn.ln_k, ("keys",)),
    )
