"""A random model of the little world's model's kind, so small that hundreds of pictures take seconds."""

from __future__ import annotations

from functools import cache

import torch

from asyndm_ext.world.model import WorldConfig, WorldModel

CONFIG = WorldConfig(
    text_width=16,
    text_layers=1,
    text_heads=2,
    decoder_widths=(8, 8, 8),
    unet_channels=(8, 8, 16),
    unet_heads=(1, 1, 2),
    unet_groups=4,
)


@cache
def random_model() -> WorldModel:
    """One for all tests."""
    return fresh_model()


def fresh_model() -> WorldModel:
    """The same weights in a model of one's own."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = WorldModel(CONFIG)
    for name, weight in model.unet.named_parameters():
        if "attn2.to_q" in name or "attn2.to_k" in name:
            weight.data *= 2  # random weights attend to everything alike
    return model.eval().requires_grad_(False)
