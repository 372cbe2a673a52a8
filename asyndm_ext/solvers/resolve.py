"""Which solver a host's sampler is: by its label, or by the function behind a label that we don't know."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable
from typing import Any

from asyndm_ext.solvers import COMFY, DENOISE_LAST, DPM2_A_RF, FLOW, LEVELS, SNR, SOLVERS, Solver

HOST_MODULES = (
    *("k_diffusion.sampling", "k_diffusion_extra", "sd_samplers_kdiffusion_smea"),
    *("sd_samplers_lcm", "sd_samplers_extra", "sd_samplers_timesteps_impl", "sd_samplers_cfgpp"),
)
"""How the names of the modules end that hold the hosts' sampler functions; namesakes elsewhere are other functions."""

FUNCTIONS: dict[str, Solver] = {
    "sample_euler": SOLVERS["Euler"],
    "sample_euler_ancestral": SOLVERS["Euler a"],
    "sample_euler_ancestral_RF": SOLVERS["Euler A Comfy RF"],
    "sample_euler_a2": SOLVERS["Euler A2"],
    "sample_euler_negative": SOLVERS["Euler Negative"],
    "sample_heun": SOLVERS["Heun"],
    "sample_heunpp2": SOLVERS["HeunPP2"],
    "sample_dpm_2": SOLVERS["DPM2"],
    "sample_dpm_2_ancestral": SOLVERS["DPM2 a"],
    "sample_dpm_2_ancestral_RF": DPM2_A_RF,
    "sample_dpm_fast": SOLVERS["DPM fast"],
    "sample_dpm_adaptive": SOLVERS["DPM adaptive"],
    "sample_dpmpp_2m": SOLVERS["DPM++ 2M"],
    "sample_dpmpp_2s_ancestral": SOLVERS["DPM++ 2S a"],
    "sample_dpmpp_2s_ancestral_RF": SOLVERS["DPM++ 2S Ancestral Comfy RF"],
    "sample_dpmpp_sde": SOLVERS["DPM++ SDE"],
    "sample_dpmpp_sde_classic": SOLVERS["DPM++ SDE Classic"],
    "sample_dpmpp_2m_sde": SOLVERS["DPM++ 2M SDE"],
    "sample_dpmpp_3m_sde": SOLVERS["DPM++ 3M SDE"],
    "sample_lms": SOLVERS["LMS"],
    "sample_lcm": SOLVERS["LCM"],
    "sample_ddpm": SOLVERS["DDPM"],
    "sample_ipndm": SOLVERS["IPNDM"],
    "sample_ipndm_v": SOLVERS["IPNDM_V"],
    "sample_deis": SOLVERS["DEIS"],
    "restart_sampler": SOLVERS["Restart"],
    "sample_euler_cfg_pp": SOLVERS["Euler CFG++"],
    "sample_euler_ancestral_cfg_pp": SOLVERS["Euler Ancestral CFG++"],
    "sample_dpmpp_2s_ancestral_cfg_pp": SOLVERS["DPM++ 2S Ancestral CFG++"],
    "sample_dpmpp_2m_cfg_pp": SOLVERS["DPM++ 2M CFG++"],
    "sample_dpmpp_sde_cfg_pp": SOLVERS["DPM++ SDE CFG++"],
    "sample_dpmpp_2m_sde_cfg_pp": SOLVERS["DPM++ 2M SDE CFG++"],
    "sample_dpmpp_3m_sde_cfg_pp": SOLVERS["DPM++ 3M SDE CFG++"],
    "sample_res_solver": SOLVERS["RES Solver"],
    "sample_res_multistep": SOLVERS["RES Multistep"],
    "sample_res_multistep_cfg_pp": SOLVERS["RES Multistep CFG++"],
    "sample_res_multistep_ancestral": SOLVERS["RES Multistep Ancestral"],
    "sample_res_multistep_ancestral_cfg_pp": SOLVERS["RES Multistep Ancestral CFG++"],
    "sample_gradient_estimation": SOLVERS["Gradient Estimation"],
    "sample_gradient_estimation_cfg_pp": SOLVERS["Gradient Estimation CFG++"],
    "sample_er_sde": SOLVERS["ER SDE"],
    "sample_seeds_2": SOLVERS["SEEDS 2 DP"],
    "sample_seeds_3": SOLVERS["SEEDS 3 DP"],
    "sample_sa_solver": SOLVERS["SA-Solver"],
    "sample_sa_solver_pece": SOLVERS["SA-Solver-Pece"],
    "sample_Kohaku_LoNyu_Yog": SOLVERS["Kohaku_LoNyu_Yog"],
    "ddim": SOLVERS["DDIM"],
    "ddim_cfgpp": SOLVERS["DDIM CFG++"],
    "plms": SOLVERS["PLMS"],
    "unipc": SOLVERS["UniPC"],
    "sample_unipc": LEVELS["sample_unipc"],
}

SPLITS = frozenset({"sample_euler_ancestral", "sample_dpm_2_ancestral"})
"""Functions that ersatzForge splits a flow's latent in as others do. Its DPM++ 2S a and DPM++ SDE count on in log-sigma
between the splits, as nobody else does."""


def solver_for(
    label: str, function: Callable[..., Any] | None, flow: bool = False, denoiser: Any = None
) -> Solver | None:
    """The solver that does what the host's sampler does.

    Args:
        label: the host's name for the sampler.
        function: the host's function, wrapped or partial or not; None where only the label is known.
        flow: the model is a rectified flow.
        denoiser: what the host calls the function with; some functions ask it for the kind of model.

    Returns:
        None for a sampler that we don't know, and for one that has no meaning for this kind of model.
    """
    core = host_function(function)
    solver = SOLVERS.get(label) or (FUNCTIONS.get(core.__name__) if core is not None else None)
    if solver is None:
        return None
    if core is not None:
        names = core.__code__.co_names
        if core.__name__ in LEVELS:
            solver = LEVELS[core.__name__]
        elif "sigma_to_half_log_snr" in names and core.__name__ in SNR:
            solver = SNR[core.__name__]
        elif core.__module__.startswith("ldm_patched.") and core.__name__ in COMFY:
            solver = COMFY[core.__name__]
        elif core.__name__ in DENOISE_LAST and _looks_for_the_end(core):
            solver = DENOISE_LAST[core.__name__]
        elif core.__name__ == "sample_sa_solver" and "use_pece" in _locals(
            core
        ):  # ersatzForge's, which decides by itself
            solver = None
        elif flow and "get_ancestral_step_flow" in names and _has_a_shift(denoiser):
            solver = FLOW[core.__name__] if core.__name__ in SPLITS else None
        elif flow and _switches(names, denoiser):
            solver = FLOW.get(core.__name__, solver)
    if solver is None or (solver.never_flow if flow else solver.flow_only):
        return None
    return solver


def host_function(function: Any) -> Any:
    """The host's plain function under wrappers and partials; None for anything else."""
    while True:
        if isinstance(function, functools.partial):
            if function.args:  # its arguments would be counted from another one
                return None
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = inspect.unwrap(function)
        else:
            break
    if not inspect.isfunction(function) or not function.__module__.endswith(HOST_MODULES):
        return None
    return function


def _looks_for_the_end(function: Any) -> bool:
    """Whether a function compares anything for equality: a sampler's next level with 0 (Forge Neo's LMS)."""
    return any(one.opname == "COMPARE_OP" and "==" in str(one.argval) for one in dis.get_instructions(function))


def _locals(function: Any) -> tuple[str, ...]:
    """A function's variables that are none of its arguments."""
    code = function.__code__
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]


def _has_a_shift(denoiser: Any) -> bool:
    """By what ersatzForge's functions know a flow."""
    predictor = getattr(getattr(denoiser, "inner_model", None), "predictor", None)
    return predictor is None or hasattr(predictor, "shift") or hasattr(predictor, "mu")


def _switches(names: tuple[str, ...], denoiser: Any) -> bool:
    """Whether a function that uses these names does something else on a rectified flow."""
    if "PredictionFlux" in names:  # Forge; its discrete flow (SD3) is not one of these
        predictor = getattr(getattr(denoiser, "inner_model", None), "predictor", None)
        return predictor is None or type(predictor).__name__ == "PredictionFlux"
    if "CONST" in names:  # ComfyUI's way; where the denoiser has no model_sampling, the function never gets there
        return hasattr(denoiser, "model_sampling")
    # Forge Neo's way; a function that hands over to one that splits a flow's latent; one that leaves it to the model.
    return not {"_is_const", "sample_euler_ancestral_cfg_pp", "noise_scaling"}.isdisjoint(names)
