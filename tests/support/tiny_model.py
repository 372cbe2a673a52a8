"""The embedded model for tests that do not care how good its pictures are."""

from __future__ import annotations

from functools import cache

import torch

from asyndm_ext.embedded import model


@cache
def tiny() -> model.TinyModel:
    """The shipped weights, or random ones where there are none."""
    if list(model.WEIGHTS.glob("*.safetensors")):
        return model.load_tiny()
    torch.manual_seed(0)
    return model.TinyModel().eval().requires_grad_(False)
