"""The embedded model for tests that do not care how good its pictures are."""

from __future__ import annotations

from functools import cache

import torch

from asyndm_ext.world import model


@cache
def tiny() -> model.WorldModel:
    """The shipped weights, or random ones where there are none."""
    if list(model.WEIGHTS.glob("*.safetensors")):
        return model.load_world()
    torch.manual_seed(0)
    return model.WorldModel().eval().requires_grad_(False)
