"""Solvers, elementwise: the host's formulas with a level per pixel.

To add one: write a function ``sample_x(run, x, **options)`` in the file of its family and register it here
under the host's name for it. ``options`` are the host's keyword arguments that the solver takes; the host
keeps handing over what it finds in its own function's signature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from asyndm_ext.solvers.ddim import sample_ddim, sample_ddim_cfgpp, sample_plms
from asyndm_ext.solvers.dpmpp import sample_dpmpp_2m
from asyndm_ext.solvers.euler import sample_euler, sample_euler_ancestral


@dataclass(frozen=True)
class Solver:
    """A solver and what it needs.

    Attributes:
        sample: ``(run, x, **options) -> x``.
        space: "sigma" (noise levels, the model returns denoised) or "timestep" (VP space, the model returns eps).
        options: the host's keyword arguments that it takes.
        guidance: what the CFG scale is multiplied by.
        uncond: needs the model's answer without the prompt.
    """

    sample: Callable[..., Tensor]
    space: Literal["sigma", "timestep"]
    options: tuple[str, ...] = ()
    guidance: float = 1.0
    uncond: bool = False


SOLVERS: dict[str, Solver] = {
    "Euler": Solver(sample_euler, "sigma", ("s_churn", "s_tmin", "s_tmax", "s_noise")),
    "Euler a": Solver(sample_euler_ancestral, "sigma", ("eta", "s_noise")),
    "DPM++ 2M": Solver(sample_dpmpp_2m, "sigma"),
    "DDIM": Solver(sample_ddim, "timestep", ("eta",)),
    # A CFG scale of 12.5 is the whole guidance of CFG++.
    "DDIM CFG++": Solver(sample_ddim_cfgpp, "timestep", ("eta",), guidance=1 / 12.5, uncond=True),
    "PLMS": Solver(sample_plms, "timestep"),
}
