"""The per-pixel solver behind a sampler's name in the WebUI."""

from __future__ import annotations

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.solvers import SOLVERS, Solver


def solver_for(name: str) -> Solver:
    """Raises NotApplied: there is no per-pixel version."""
    if name not in SOLVERS:
        raise NotApplied(f"there is no per-pixel version of the sampler {name!r}")
    return SOLVERS[name]
