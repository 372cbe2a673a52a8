"""Solvers, elementwise: the host's formulas with a level per pixel.

To add one: write a function ``sample_x(run, x, **options)`` in the file of its family and register it here
under the host's name for it. ``options`` are the host's keyword arguments that the solver takes; the host
keeps handing over what it finds in its own function's signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from asyndm_ext.schedule import BaseSchedule
from asyndm_ext.solvers.ddim import sample_ddim, sample_ddim_cfgpp, sample_plms
from asyndm_ext.solvers.ddpm import sample_ddpm
from asyndm_ext.solvers.dpm2 import sample_dpm_2, sample_dpm_2_ancestral
from asyndm_ext.solvers.dpm_solver import adaptive_schedule, fast_schedule, sample_dpm_adaptive, sample_dpm_fast
from asyndm_ext.solvers.dpmpp import sample_dpmpp_2m, sample_dpmpp_2s_ancestral
from asyndm_ext.solvers.dpmpp_sde import sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_dpmpp_sde
from asyndm_ext.solvers.euler import sample_euler, sample_euler_ancestral
from asyndm_ext.solvers.flow import sample_dpm_2_ancestral_flow, sample_euler_ancestral_flow
from asyndm_ext.solvers.heun import sample_heun, sample_heunpp2
from asyndm_ext.solvers.ipndm import sample_ipndm, sample_ipndm_v
from asyndm_ext.solvers.lcm import sample_lcm
from asyndm_ext.solvers.multistep import sample_deis, sample_lms
from asyndm_ext.solvers.restart import restart_schedule, sample_restart
from asyndm_ext.solvers.unipc import sample_unipc, unipc_schedule


@dataclass(frozen=True)
class Solver:
    """A solver and what it needs.

    Attributes:
        sample: ``(run, x, **options) -> x``.
        space: "sigma" (noise levels, the model returns denoised) or "timestep" (VP space, the model returns eps).
        options: the host's keyword arguments that it takes.
        brownian: its noise comes from a Brownian tree rather than from fresh draws.
        guidance: what the CFG scale is multiplied by.
        uncond: needs the model's answer without the prompt.
        own_schedule: makes its levels from the host's arguments; otherwise they are the host's list.
        settings: the host's settings that it takes as arguments: argument name, setting's name.
        adaptive: how many steps it takes is not known beforehand.
    """

    sample: Callable[..., Tensor]
    space: Literal["sigma", "timestep"]
    options: tuple[str, ...] = ()
    brownian: bool = False
    guidance: float = 1.0
    uncond: bool = False
    own_schedule: Callable[[Mapping[str, Any]], BaseSchedule] | None = None
    settings: tuple[tuple[str, str], ...] = ()
    adaptive: bool = False

    def schedule(self, arguments: Mapping[str, Any]) -> BaseSchedule:
        """The levels that it walks through, from the host's arguments ``sigmas``, ``timesteps`` and so on."""
        if self.own_schedule is not None:
            return self.own_schedule(arguments)
        if self.space == "timestep":
            # The host lists them from clean to noisy; the last level is its first timestep.
            return BaseSchedule.from_timesteps(arguments["timesteps"].flip(0))
        return BaseSchedule.from_sigmas(arguments["sigmas"])

    def chosen(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the host's arguments that it takes."""
        return {name: arguments[name] for name in self.options if name in arguments}


ADAPTIVE_OPTIONS = (
    *("order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety"),
    *("eta", "s_noise"),
)

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
    "DPM fast": Solver(sample_dpm_fast, "sigma", ("n", "eta", "s_noise"), own_schedule=fast_schedule),
    "DPM adaptive": Solver(
        sample_dpm_adaptive, "sigma", ADAPTIVE_OPTIONS, own_schedule=adaptive_schedule, adaptive=True
    ),
    "Restart": Solver(sample_restart, "sigma", ("sigmas", "s_noise", "restart_list"), own_schedule=restart_schedule),
    "DDIM": Solver(sample_ddim, "timestep", ("eta",)),
    # A CFG scale of 12.5 is the whole guidance of CFG++.
    "DDIM CFG++": Solver(sample_ddim_cfgpp, "timestep", ("eta",), guidance=1 / 12.5, uncond=True),
    "PLMS": Solver(sample_plms, "timestep"),
    "UniPC": Solver(
        sample_unipc,
        "timestep",
        ("variant", "order", "lower_order_final"),
        own_schedule=unipc_schedule,
        settings=tuple((name, f"uni_pc_{name}") for name in ("variant", "order", "lower_order_final", "skip_type")),
    ),
}

# What Forge samples with under these names when the model is Flux.
FLOW_SOLVERS: dict[str, Solver] = {
    "Euler a": Solver(sample_euler_ancestral_flow, "sigma", ANCESTRAL),
    "DPM2 a": Solver(sample_dpm_2_ancestral_flow, "sigma", ANCESTRAL),
}
