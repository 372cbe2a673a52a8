"""A pass without a trace: the plain one before the real one, for a fixed mask, and one that has to be begun again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import shared

from asyndm_ext.machine.random_state import random_state

# What the host's denoiser counts and notes.
COUNTED = ("step", "padded_cond_uncond", "padded_cond_uncond_v0")


def remembered(p: Any, denoiser: Any) -> Callable[[], None]:
    """Remember where a job stands before a pass; returns what puts its random numbers and its counters back there."""
    generators = [_copied(generator) for generator in p.rng.generators]
    counted = {name: getattr(denoiser, name) for name in COUNTED if hasattr(denoiser, name)}
    restore_torch = random_state()

    def restore() -> None:
        p.rng.generators = generators
        restore_torch()
        shared.state.sampling_step = 0
        for name, value in counted.items():
            setattr(denoiser, name, value)

    return restore


@contextmanager
def rehearsal(p: Any, denoiser: Any) -> Iterator[None]:
    """Within this block a pass can be sampled without a trace: random numbers, step counter, refiner, title.

    The refiner stays out of it: switching there and back would load two checkpoints.
    """
    refiner, title = p.refiner_checkpoint_info, shared.state.textinfo
    restore = remembered(p, denoiser)
    try:
        p.refiner_checkpoint_info = None
        shared.state.textinfo = "AsynDM: a plain pass for the fixed mask"
        yield
    finally:
        restore()
        p.refiner_checkpoint_info = refiner
        shared.state.textinfo = title


def _copied(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return torch.Generator(generator.device).set_state(generator.get_state())
    return copy.deepcopy(generator)  # the WebUI's own, which imitates a GPU's


def show_progress(step: dict[str, Any]) -> None:
    """The sampler's callback in a rehearsal: the progress bar moves, nobody else is told."""
    shared.state.sampling_step = step["i"]
