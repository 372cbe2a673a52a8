"""Z-Image, Lumina 2 and Neta (NextDiT): one stream of text and picture, each refined by some blocks of its own before.

A block scales what goes into its attention and its feed-forward, adds no shift, and takes what comes out of their norms
by the tanh of a gate. The network's clock runs from 0 (noise) to 1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from asyndm_ext.model.dit_time import AdaLN, DiTTimeConditioning
from asyndm_ext.model.token_modulation import Input, Modulation, Output
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown
from asyndm_ext.model.unet_time import UnsupportedModel


def is_nextdit(network: Any) -> bool:
    parts = ("cap_embedder", "context_refiner", "t_embedder")
    blocks = [next(iter(getattr(network, name, [])), None) for name in ("noise_refiner", "layers")]
    return all(hasattr(network, part) for part in parts) and all(hasattr(block, "ffn_norm2") for block in blocks)


def layout(network: Any) -> Layout:
    """Raises UnsupportedModel: a variant that is not known."""
    if getattr(network, "clip_text_pooled_proj", None) is not None:
        raise UnsupportedModel(f"{type(network).__name__} mixes pooled text into the timestep")
    adaln = [_adaln(block, with_text=False) for block in network.noise_refiner]
    adaln += [_adaln(block, with_text=True) for block in network.layers]
    last = network.final_layer
    scaled = Modulation((Input(last.linear, shift=None, scale=0),), with_text=True)
    adaln.append(AdaLN.of(last.adaLN_modulation, scaled))
    patch, time_scale = int(network.patch_size), float(network.time_scale)

    def embedded(t: Tensor) -> Tensor:
        return (1000 - t) * (time_scale / 1000)

    return Layout(
        patch,
        lambda: DiTTimeConditioning(network.t_embedder.mlp, adaln, patch, embedded),
        attentions=tuple(_attention(block) for block in network.layers),
        positions=network.rope_embedder,
        picture=network.noise_refiner[0].attention.q_norm,
    )


def _adaln(block: Any, with_text: bool) -> AdaLN:
    inputs = (Input(block.attention, shift=None, scale=0), Input(block.feed_forward, shift=None, scale=2))
    outputs = (Output(block.attention_norm2, 1, tanh=True), Output(block.ffn_norm2, 3, tanh=True))
    return AdaLN.of(block.adaLN_modulation, Modulation(inputs, outputs, with_text))


def _attention(block: Any) -> Attention:
    return Shown(block.attention.q_norm, ("all_queries",)), Shown(block.attention.k_norm, ("all_keys",))
