"""A random model of the embedded model's kind, so small that hundreds of pictures take seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from asyndm_ext.embedded.model import TinyConfig, TinyModel
from asyndm_ext.embedded.sampling import Job
from asyndm_ext.settings import Settings

CONFIG = TinyConfig(
    text_width=16,
    text_layers=1,
    text_heads=2,
    autoencoder_width=8,
    autoencoder_blocks=1,
    unet_channels=(8, 8, 16),
    unet_heads=(1, 1, 2),
    unet_groups=4,
)
OBJECTS = ("red circle", "blue square")


@cache
def random_model() -> TinyModel:
    """One for all tests."""
    return fresh_model()


def fresh_model() -> TinyModel:
    """The same weights in a model of one's own."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = TinyModel(CONFIG)
    for name, weight in model.unet.named_parameters():
        if "attn2.to_q" in name or "attn2.to_k" in name:
            weight.data *= 2  # random weights attend to everything alike
    return model.eval().requires_grad_(False)


def job(settings: dict[str, Any] | None = None, **values: Any) -> Job:
    """Three steps of a 64 x 64 picture, unless told otherwise."""
    chosen = {"prompt": "a red circle and a blue square", "seed": 5, "steps": 3, "width": 64, "height": 64, **values}
    return Job(settings=Settings(**{"enabled": True, "objects": OBJECTS, **(settings or {})}), **chosen)
