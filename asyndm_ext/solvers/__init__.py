"""Solvers, elementwise: the host's formulas with a level per pixel.

To add one: write a function ``sample_x(run, x, **options)`` in the file of its family and register it here
under the host's name for it. ``options`` are the host's keyword arguments that the solver takes; the host
keeps handing over what it finds in its own function's signature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from asyndm_ext.solvers.ddim import sample_ddim
from asyndm_ext.solvers.ddpm import sample_ddpm
from asyndm_ext.solvers.dpm2 import sample_dpm_2, sample_dpm_2_ancestral
from asyndm_ext.solvers.dpmpp import sample_dpmpp_2m, sample_dpmpp_2s_ancestral
from asyndm_ext.solvers.dpmpp_sde import sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_dpmpp_sde
from asyndm_ext.solvers.euler import sample_euler, sample_euler_ancestral
from asyndm_ext.solvers.heun import sample_heun, sample_heunpp2
from asyndm_ext.solvers.ipndm import sample_ipndm, sample_ipndm_v
from asyndm_ext.solvers.lcm import sample_lcm
from asyndm_ext.solvers.multistep import sample_deis, sample_lms


@dataclass(frozen=True)
class Solver:
    """A solver and what it needs.

    Attributes:
        sample: ``(run, x, **options) -> x``.
        space: "sigma" (noise levels, the model returns denoised) or "timestep" (VP space, the model returns eps).
        options: the host's keyword arguments that it takes.
        brownian: its noise comes from a Brownian tree rather than from fresh draws.
    """

    sample: Callable[..., Tensor]
    space: Literal["sigma", "timestep"]
    options: tuple[str, ...] = ()
    brownian: bool = False


CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ANCESTRAL = ("eta", "s_noise")

SOLVERS: dict[str, Solver] = {
    "Euler": Solver(sample_euler, "sigma", CHURN),
    "Euler a": Solver(sample_euler_ancestral, "sigma", ANCESTRAL),
    "Heun": Solver(sample_heun, "sigma", CHURN),
    "DPM2": Solver(sample_dpm_2, "sigma", CHURN),
    "DPM2 a": Solver(sample_dpm_2_ancestral, "sigma", ANCESTRAL),
    "DPM++ 2M": Solver(sample_dpmpp_2m, "sigma"),
    "DPM++ 2S a": Solver(sample_dpmpp_2s_ancestral, "sigma", ANCESTRAL),
    "DPM++ SDE": Solver(sample_dpmpp_sde, "sigma", ANCESTRAL, brownian=True),
    "DPM++ 2M SDE": Solver(sample_dpmpp_2m_sde, "sigma", ANCESTRAL, brownian=True),
    "DPM++ 2M SDE Heun": Solver(partial(sample_dpmpp_2m_sde, solver_type="heun"), "sigma", ANCESTRAL, brownian=True),
    "DPM++ 3M SDE": Solver(sample_dpmpp_3m_sde, "sigma", ANCESTRAL, brownian=True),
    "LMS": Solver(sample_lms, "sigma"),
    "LCM": Solver(sample_lcm, "sigma"),
    "HeunPP2": Solver(sample_heunpp2, "sigma", CHURN),
    "IPNDM": Solver(sample_ipndm, "sigma"),
    "IPNDM_V": Solver(sample_ipndm_v, "sigma"),
    "DEIS": Solver(sample_deis, "sigma"),
    "DDPM": Solver(sample_ddpm, "sigma"),
    "DDIM": Solver(sample_ddim, "timestep", ("eta",)),
}
