"""The per-pixel solver of a job's sampler, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.solvers import LEFT_OUT, Solver
from asyndm_ext.solvers.resolve import solver_for


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
