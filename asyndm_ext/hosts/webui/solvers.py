"""The per-pixel solver of a job's sampler, or why there is none; and where that sampler draws its noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import k_diffusion.sampling
from torch import Tensor

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.solvers import LEFT_OUT, Solver
from asyndm_ext.solvers.resolve import host_function, solver_for


def pass_solver(label: str, function: Callable[..., Any], flow: bool, denoiser: Any) -> Solver:
    """What does, pixel by pixel, what the host's sampler does; arguments as of :func:`solver_for`.

    Raises:
        NotApplied: nothing does.
    """
    solver = solver_for(label, function, flow, denoiser)
    if solver is None:
        why = f", which {LEFT_OUT[label]}" if label in LEFT_OUT else ""
        raise NotApplied(f"there is no per-pixel version of the sampler {label!r}{why}")
    return solver


def noise_source(function: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Fresh normals like a tensor, from where the host's sampler function draws them, so that seeds match.

    That is k-diffusion's ``torch``, behind whose name the host puts the job's own generator. A function of a module
    that makes noise by itself (Forge's DDPM) draws from torch's generator instead.
    """
    core = host_function(function)
    own = core.__globals__.get("default_noise_sampler") if core is not None else None
    if own is not None and own.__module__ == core.__module__ != k_diffusion.sampling.__name__:
        return lambda like: own(like)(None, None)
    # Looked up at the draw.
    return lambda like: k_diffusion.sampling.torch.randn_like(like)  # noqa: PLW0108
