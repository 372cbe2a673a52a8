"""A plain pass before the real one, for a fixed mask: same noise, and afterwards the job is as if it had not been."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import shared


@contextmanager
def rehearsal(p: Any, denoiser: Any, device: torch.device) -> Iterator[None]:
    """Within this block a pass can be sampled without a trace: random numbers, step counter, refiner, title.

    The refiner stays out of it: switching there and back would load two checkpoints.
    """
    generators = p.rng.generators
    before = {name: getattr(denoiser, name) for name in ("step", "padded_cond_uncond", "padded_cond_uncond_v0")}
    refiner, title = p.refiner_checkpoint_info, shared.state.textinfo
    forked = [device] if device.type == "cuda" else []
    try:
        p.rng.generators = [_copied(generator) for generator in generators]
        p.refiner_checkpoint_info = None
        shared.state.textinfo = "AsynDM: a plain pass for the fixed mask"
        with torch.random.fork_rng(forked):
            yield
    finally:
        p.rng.generators = generators
        p.refiner_checkpoint_info = refiner
        shared.state.textinfo = title
        shared.state.sampling_step = 0
        for name, value in before.items():
            setattr(denoiser, name, value)


def _copied(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return torch.Generator(generator.device).set_state(generator.get_state())
    return copy.deepcopy(generator)  # the WebUI's own, which imitates a GPU's


def show_progress(step: dict[str, Any]) -> None:
    """The sampler's callback in a rehearsal: the progress bar moves, nobody else is told."""
    shared.state.sampling_step = step["i"]
