"""Solvers, elementwise: the host's formulas with a level per pixel.

To add one: write a function ``sample_x(run, x, **options)`` in the file of its family and register it here
under the host's name for it. ``options`` are the host's keyword arguments that the solver takes; the host
keeps handing over what it finds in its own function's signature.

A host finds its solver with :func:`asyndm_ext.solvers.resolve.solver_for`, which also knows the hosts' function names
and the forms that some hosts' functions take on a rectified flow. What is not here, and why: :data:`LEFT_OUT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from asyndm_ext.solvers.cfgpp import (
    sample_dpmpp_2m_cfgpp,
    sample_dpmpp_2s_ancestral_cfgpp,
    sample_dpmpp_sde_cfgpp,
    sample_euler_ancestral_cfgpp,
    sample_euler_cfgpp,
)
from asyndm_ext.solvers.ddim import sample_ddim, sample_ddim_cfgpp, sample_plms
from asyndm_ext.solvers.ddpm import sample_ddpm
from asyndm_ext.solvers.dpm2 import sample_dpm_2, sample_dpm_2_ancestral
from asyndm_ext.solvers.dpm_solver import adaptive_schedule, fast_schedule, sample_dpm_adaptive, sample_dpm_fast
from asyndm_ext.solvers.dpmpp import sample_dpmpp_2m, sample_dpmpp_2s_ancestral
from asyndm_ext.solvers.dpmpp_sde import sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_dpmpp_sde
from asyndm_ext.solvers.er_sde import sample_er_sde
from asyndm_ext.solvers.euler import sample_euler, sample_euler_ancestral, sample_euler_negative, sample_kohaku
from asyndm_ext.solvers.flow import (
    in_half_log_snr,
    sample_dpm_2_ancestral_flow,
    sample_dpmpp_2s_ancestral_flow,
    sample_euler_a2,
    sample_euler_ancestral_flow,
    sample_lcm_flow,
    snr_schedule,
)
from asyndm_ext.solvers.gradient import sample_gradient_estimation
from asyndm_ext.solvers.heun import sample_heun, sample_heunpp2
from asyndm_ext.solvers.ipndm import sample_ipndm, sample_ipndm_v
from asyndm_ext.solvers.lcm import sample_lcm
from asyndm_ext.solvers.multistep import sample_deis, sample_lms
from asyndm_ext.solvers.res import sample_res_multistep, sample_res_solver
from asyndm_ext.solvers.restart import restart_schedule, sample_restart
from asyndm_ext.solvers.sa_solver import sample_sa_solver
from asyndm_ext.solvers.seeds import sample_seeds_2, sample_seeds_3
from asyndm_ext.solvers.solver import Settings, Solver
from asyndm_ext.solvers.unipc import sample_unipc, sample_unipc_levels, unipc_levels, unipc_schedule

__all__ = ["COMFY", "FLOW", "LEFT_OUT", "LEVELS", "SNR", "SOLVERS", "Solver"]

ADAPTIVE_OPTIONS = (
    *("order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety"),
    *("eta", "s_noise"),
)

CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ANCESTRAL = ("eta", "s_noise")


def named(prefix: str, *arguments: str) -> Settings:
    """Settings called after their arguments."""
    return tuple((argument, f"{prefix}_{argument}") for argument in arguments)


# -- noise levels: AUTOMATIC1111's and Forge's

EULER = Solver(sample_euler, "sigma", CHURN, stand_ins=named("euler_og", "s_churn", "s_tmin", "s_noise"))
EULER_A = Solver(sample_euler_ancestral, "sigma", ANCESTRAL, stand_ins=named("euler_ancestral_og", *ANCESTRAL))
HEUN = Solver(sample_heun, "sigma", CHURN, stand_ins=named("heun_og", "s_churn", "s_tmin", "s_noise"))
DPMPP_2M = Solver(sample_dpmpp_2m, "sigma")
DPMPP_2S_A = Solver(sample_dpmpp_2s_ancestral, "sigma", ANCESTRAL, stand_ins=named("dpm_2s_ancestral_og", *ANCESTRAL))
DPMPP_SDE = Solver(
    sample_dpmpp_sde, "sigma", (*ANCESTRAL, "r"), brownian=True, stand_ins=named("dpmpp_sde_og", *ANCESTRAL, "r")
)
DPMPP_2M_SDE = Solver(
    sample_dpmpp_2m_sde,
    "sigma",
    (*ANCESTRAL, "solver_type"),
    brownian=True,
    stand_ins=named("dpmpp_2m_sde_og", *ANCESTRAL, "solver_type"),
)
DPMPP_2M_SDE_HEUN = Solver(partial(sample_dpmpp_2m_sde, solver_type="heun"), "sigma", ANCESTRAL, brownian=True)
DPMPP_3M_SDE = Solver(
    sample_dpmpp_3m_sde, "sigma", ANCESTRAL, brownian=True, stand_ins=named("dpmpp_3m_sde_og", *ANCESTRAL)
)
IPNDM = Solver(sample_ipndm, "sigma", ("max_order",), stand_ins=named("ipndm", "max_order"))
IPNDM_V = Solver(sample_ipndm_v, "sigma", ("max_order",), stand_ins=named("ipndm_v", "max_order"))

SOLVERS: dict[str, Solver] = {
    "Euler": EULER,
    "Euler a": EULER_A,
    "Heun": HEUN,
    "DPM2": Solver(sample_dpm_2, "sigma", CHURN),
    "DPM2 a": Solver(sample_dpm_2_ancestral, "sigma", ANCESTRAL, stand_ins=(("s_noise", "dpm2_ancestral_s_noise"),)),
    "DPM++ 2M": DPMPP_2M,
    "DPM++ 2S a": DPMPP_2S_A,
    "DPM++ SDE": DPMPP_SDE,
    "DPM++ 2M SDE": DPMPP_2M_SDE,
    "DPM++ 2M SDE Heun": DPMPP_2M_SDE_HEUN,
    "DPM++ 3M SDE": DPMPP_3M_SDE,
    "LMS": Solver(sample_lms, "sigma"),
    "LCM": Solver(sample_lcm, "sigma"),
    "HeunPP2": Solver(sample_heunpp2, "sigma", CHURN, stand_ins=named("heunpp2", "s_churn", "s_tmin", "s_noise")),
    "IPNDM": IPNDM,
    "IPNDM_V": IPNDM_V,
    "DEIS": Solver(sample_deis, "sigma", ("max_order",), stand_ins=named("deis", "max_order")),
    "DDPM": Solver(sample_ddpm, "sigma"),
    "DPM fast": Solver(sample_dpm_fast, "sigma", ("n", "eta", "s_noise"), own_schedule=fast_schedule),
    "DPM adaptive": Solver(
        sample_dpm_adaptive, "sigma", ADAPTIVE_OPTIONS, own_schedule=adaptive_schedule, adaptive=True
    ),
    "Restart": Solver(sample_restart, "sigma", ("sigmas", "s_noise", "restart_list"), own_schedule=restart_schedule),
}

# -- timesteps

SOLVERS |= {
    "DDIM": Solver(sample_ddim, "timestep", ("eta",)),
    # A CFG scale of 12.5 is the whole guidance of CFG++.
    "DDIM CFG++": Solver(sample_ddim_cfgpp, "timestep", ("eta",), guidance=1 / 12.5, uncond=True),
    "PLMS": Solver(sample_plms, "timestep"),
    "UniPC": Solver(
        sample_unipc,
        "timestep",
        ("variant", "order", "lower_order_final"),
        own_schedule=unipc_schedule,
        settings=named("uni_pc", "variant", "order", "lower_order_final", "skip_type"),
    ),
}

# -- reForge's and Forge Classic's; theirs scale nothing for CFG++


def cfgpp(sample: Callable[..., Tensor], *options: str, prefix: str = "", brownian: bool = False) -> Solver:
    stand_ins = named(prefix, *options) if prefix else ()
    return Solver(sample, "sigma", options, brownian=brownian, uncond=True, stand_ins=stand_ins)


def in_snr(sample: Callable[..., Tensor], *options: str) -> Solver:
    return Solver(in_half_log_snr(sample), "sigma", options, own_schedule=snr_schedule)


EULER_A_RF = Solver(sample_euler_ancestral_flow, "sigma", ANCESTRAL, flow_only=True)
DPM2_A_RF = Solver(sample_dpm_2_ancestral_flow, "sigma", ANCESTRAL, flow_only=True)
DPMPP_2S_A_RF = Solver(sample_dpmpp_2s_ancestral_flow, "sigma", ANCESTRAL, flow_only=True)

SOLVERS |= {
    "Euler CFG++": cfgpp(sample_euler_cfgpp),
    "Euler Ancestral CFG++": cfgpp(sample_euler_ancestral_cfgpp, *ANCESTRAL, prefix="euler_ancestral_cfg_pp"),
    "DPM++ 2S Ancestral CFG++": cfgpp(sample_dpmpp_2s_ancestral_cfgpp, *ANCESTRAL, prefix="dpmpp_2s_ancestral_cfg_pp"),
    "DPM++ 2M CFG++": cfgpp(sample_dpmpp_2m_cfgpp),
    "DPM++ SDE CFG++": cfgpp(sample_dpmpp_sde_cfgpp, *ANCESTRAL, "r", prefix="dpmpp_sde_cfg_pp", brownian=True),
    "DPM++ 2M SDE CFG++": cfgpp(
        partial(sample_dpmpp_2m_sde, cfgpp=True),
        *(*ANCESTRAL, "solver_type"),
        prefix="dpmpp_2m_sde_cfg_pp",
        brownian=True,
    ),
    "DPM++ 3M SDE CFG++": cfgpp(
        partial(sample_dpmpp_3m_sde, cfgpp=True), *ANCESTRAL, prefix="dpmpp_3m_sde_cfg_pp", brownian=True
    ),
    "RES Solver": Solver(sample_res_solver, "sigma"),
    "RES Multistep": Solver(sample_res_multistep, "sigma"),
    "RES Multistep CFG++": cfgpp(partial(sample_res_multistep, cfgpp=True)),
    "RES Multistep Ancestral": Solver(partial(sample_res_multistep, eta=1.0), "sigma", ANCESTRAL),
    "RES Multistep Ancestral CFG++": cfgpp(partial(sample_res_multistep, eta=1.0, cfgpp=True), *ANCESTRAL),
    "Gradient Estimation": Solver(sample_gradient_estimation, "sigma", ("ge_gamma",)),
    "Gradient Estimation CFG++": cfgpp(partial(sample_gradient_estimation, cfgpp=True), "ge_gamma"),
    "ER SDE": in_snr(sample_er_sde, "s_noise", "max_stage"),
    "SEEDS 2 DP": in_snr(sample_seeds_2, *ANCESTRAL),
    "SEEDS 3 DP": in_snr(sample_seeds_3, *ANCESTRAL),
    "SA-Solver": in_snr(sample_sa_solver, "s_noise", "predictor_order", "corrector_order"),
    "SA-Solver-Pece": in_snr(partial(sample_sa_solver, pece=True), "s_noise", "predictor_order", "corrector_order"),
    "Kohaku_LoNyu_Yog": Solver(
        sample_kohaku,
        "sigma",
        (*CHURN, "eta"),
        stand_ins=named("kohaku_lonyu_yog", "s_churn", "s_tmin", "s_noise", "eta"),
    ),
    "Euler Negative": Solver(
        sample_euler_negative, "sigma", CHURN, stand_ins=named("euler_negative", "s_churn", "s_tmin", "s_noise")
    ),
    "Euler A2": Solver(
        sample_euler_a2,
        "sigma",
        stand_ins=named("euler_a2", "eta", "s_noise", "extrapolation"),
        flow_only=True,
    ),
    "Euler A Comfy RF": EULER_A_RF,
    "DPM++ 2S Ancestral Comfy RF": DPMPP_2S_A_RF,
    # Other names, some for a schedule type that goes with them.
    "DPM++ SDE Classic": DPMPP_SDE,
    "Euler A Turbo": EULER_A,
    "DPM++ 2M Turbo": DPMPP_2M,
    "DPM++ 2M SDE Turbo": DPMPP_2M_SDE,
    "Euler Comfy": EULER,
    "Euler A Comfy": EULER_A,
    "Heun Comfy": HEUN,
    "DPM++ 2S Ancestral Comfy": DPMPP_2S_A,
    "DPM++ SDE Comfy": DPMPP_SDE,
    "DPM++ 2M Comfy": DPMPP_2M,
    "DPM++ 2M SDE Comfy": DPMPP_2M_SDE,
    "DPM++ 3M SDE Comfy": DPMPP_3M_SDE,
}

SNR: dict[str, Solver] = {
    "sample_dpmpp_sde": replace(
        DPMPP_SDE, sample=in_half_log_snr(partial(sample_dpmpp_sde, by_log=False)), own_schedule=snr_schedule
    ),
    # The solver type is the setting's there, whatever the label says.
    "sample_dpmpp_2m_sde": replace(
        DPMPP_2M_SDE, sample=in_half_log_snr(sample_dpmpp_2m_sde), own_schedule=snr_schedule
    ),
    "sample_dpmpp_3m_sde": replace(
        DPMPP_3M_SDE, sample=in_half_log_snr(sample_dpmpp_3m_sde), own_schedule=snr_schedule
    ),
}
"""By the host's function: forms of functions that count in half-log-SNR, for any kind of model."""

FLOW: dict[str, Solver] = {
    "sample_euler_ancestral": EULER_A_RF,
    "sample_dpm_2_ancestral": DPM2_A_RF,
    "sample_dpmpp_2s_ancestral": DPMPP_2S_A_RF,
    "sample_lcm": Solver(sample_lcm_flow, "sigma"),
    # The ancestral one without fresh noise, which splits a flow's latent into signal and noise.
    "sample_euler_cfg_pp": cfgpp(partial(sample_euler_ancestral_cfgpp, eta=0.0)),
}
"""By the host's function: what some hosts' functions hand over to, or become, on a rectified flow."""

LEVELS: dict[str, Solver] = {
    "sample_unipc": Solver(sample_unipc_levels, "sigma", ("variant",), own_schedule=unipc_levels, never_flow=True),
}
"""By the host's function: what works with noise levels under a label that is another host's for timesteps."""

COMFY: dict[str, Solver] = {
    "sample_ipndm": replace(IPNDM, sample=partial(sample_ipndm, denoise_last=True)),
    "sample_ipndm_v": replace(IPNDM_V, sample=partial(sample_ipndm_v, denoise_last=True)),
}
"""By the host's function: what differs in hosts whose functions are ComfyUI's."""

_RESAMPLES = "resamples the latent to another size"
_CHURNS = "raises the noise before each step of a multistep method, whose history is at other levels then"
_PACKAGE = "is a call of an ODE package"

LEFT_OUT: dict[str, str] = {
    "Euler Dy": _RESAMPLES,
    "Euler SMEA Dy": _RESAMPLES,
    "Euler Negative Dy": _RESAMPLES,
    "Euler DY CFG++": _RESAMPLES,
    "Euler SMEA DY CFG++": _RESAMPLES,
    "Euler A DY CFG++": _RESAMPLES,
    "DPM++ 2M DY": _CHURNS,
    "DPM++ 3M DY": _CHURNS,
    "DPM++ 3M SDE DY": _CHURNS,
    "DPM++ 2M DY CFG++": _RESAMPLES,
    "DPM++ 2S Ancestral CFG++ Intern": _RESAMPLES,
    "DPM++ 2S Ancestral CFG++ Dyn": "looks back to levels above its step in long steps, and blows up in few",
    "ODE (Bosh3)": _PACKAGE,
    "ODE (Fehlberg2)": _PACKAGE,
    "ODE (Adaptive Heun)": _PACKAGE,
    "ODE (Dopri5)": _PACKAGE,
    "ODE Custom": _PACKAGE,
    "Custom Sampler": "is put together from settings and may be any of the others",
}
"""Samplers of the hosts that have no solver here, and why: "X ..."."""
