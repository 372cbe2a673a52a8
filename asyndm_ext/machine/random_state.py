"""torch's own random numbers, of every device, put back to where they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ACCELERATORS = ("cuda", "xpu", "mps")


def random_state() -> Callable[[], None]:
    """Remember where torch's random numbers are, of the CPU and of all accelerators in use; returns what puts them
    back."""
    cpu = torch.get_rng_state()
    others = [(module, state) for module in _in_use() if (state := _states(module)) is not None]

    def restore() -> None:
        torch.set_rng_state(cpu)
        for module, state in others:
            if isinstance(state, list):
                module.set_rng_state_all(state)
            else:
                module.set_rng_state(state)

    return restore


def _in_use() -> list[Any]:
    """torch's modules of accelerators that this torch has, that are there, and that something has been computed on: to
    ask another one would set it up, which costs memory."""
    found = [getattr(torch, name) for name in ACCELERATORS if hasattr(torch, name)]
    return [module for module in found if _is_available(module) and _is_initialized(module)]


def _is_available(module: Any) -> bool:
    available = getattr(module, "is_available", None)
    if available is None and module is getattr(torch, "mps", None):  # torch 2.1 has it elsewhere
        available = torch.backends.mps.is_available
    return bool(available is not None and available())


def _is_initialized(module: Any) -> bool:
    return bool(getattr(module, "is_initialized", lambda: True)())


def _states(module: Any) -> list[Any] | Any | None:
    """Of all its devices where it has several."""
    if hasattr(module, "get_rng_state_all"):
        return module.get_rng_state_all()
    return module.get_rng_state() if hasattr(module, "get_rng_state") else None
