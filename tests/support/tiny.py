"""A random model of the embedded model's kind, so small that hundreds of pictures take seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from asyndm_ext.embedded.job import Job
from asyndm_ext.settings import Settings
from asyndm_ext.world.model import WorldConfig, WorldModel

CONFIG = WorldConfig(
    text_width=16,
    text_layers=1,
    text_heads=2,
    decoder_widths=(8, 8, 8),
    unet_channels=(8, 16),
    unet_heads=(1, 2),
    unet_groups=4,
)
OBJECTS = ("shark", "bike")


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


def job(settings: dict[str, Any] | None = None, **values: Any) -> Job:
    """Three steps of a 128 x 128 picture, unless told otherwise."""
    chosen = {"prompt": "a shark riding a bike", "seed": 5, "steps": 3, **values}
    return Job(settings=Settings(**{"enabled": True, "objects": OBJECTS, **(settings or {})}), **chosen)
