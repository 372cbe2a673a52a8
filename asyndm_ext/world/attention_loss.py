"""Teach the cross-attention where the words' objects are, which a training on millions of pictures finds by itself.

The loss is the token loss of TokenCompose (Wang et al., arXiv 2312.03626): of all the attention that a noun gets,
the share that falls on the noun's objects should be 1. Without it this small a training ends with colours and shapes
bound to the wrong objects more often than not. Only the training sees it: what is exported is an ordinary UNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

_SMALL = 1e-4


@contextmanager
def word_attention(unet: UNet2DConditionModel, cells: int) -> Iterator[list[Tensor]]:
    """Collect the cross-attention ``(B,cells*cells,L)``, mean over heads, of layers of that size, with gradients."""
    maps: list[Tensor] = []

    def look(layer: Any, arguments: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        pixels, words = arguments[0], named["encoder_hidden_states"]
        if pixels.shape[1] == cells * cells:
            query = layer.to_q(pixels).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            key = layer.to_k(words).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            maps.append((query @ key.transpose(-1, -2) * layer.scale).float().softmax(dim=-1).mean(dim=1))

    layers = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def attention_loss(maps: list[Tensor], nouns: Tensor, cover: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``-log(share of the noun's attention that falls on its objects)`` over images, groups and layers.

    Args:
        maps: attention of each layer, ``(B,cells*cells,L)``.
        nouns: column of each group's noun ``(B,G)``, 0 for no group.
        cover: ``(B,G,cells,cells)`` in [0, 1]: where the group's objects are.
        weight: ``(B,)`` in [0, 1]: how much each image counts.
    """
    attention = torch.stack(maps).mean(dim=0)
    nouns, cover = nouns.to(attention.device), cover.to(attention.device).flatten(2)
    own = attention.transpose(1, 2).gather(1, nouns[..., None].expand(-1, -1, attention.shape[1]))
    share = (own * cover).sum(dim=-1) / (own.sum(dim=-1) + _SMALL)
    loss = -(share + _SMALL).log() * (nouns > 0) * weight[:, None]
    return loss.sum() / nouns.shape[0]
