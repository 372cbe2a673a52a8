"""Whether torch compiles networks here."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

is_compiling: Callable[[], bool] = getattr(getattr(torch, "compiler", None), "is_compiling", bool)
"""Whether torch is compiling what runs right now."""


def may_compile() -> bool:
    """Whether torch has been asked to compile anything in this process, as far as can be told."""
    frames = sys.modules.get("torch._dynamo.eval_frame")
    if frames is None:  # torch.compile loads it
        return False
    backends = getattr(frames, "cached_backends", None)  # with None for what must not be compiled
    return backends is None or any(map(callable, backends.values()))
