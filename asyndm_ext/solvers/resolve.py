"""Which solver a host's sampler is: by its label, or by the function behind a label that we don't know."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable
from typing import Any

from asyndm_ext import solvers  # not its tables: it may be importing this file on its way to them
from asyndm_ext.solvers.solver import Solver

HOST_MODULES = (
    *("k_diffusion.sampling", "k_diffusion_extra", "sd_samplers_kdiffusion_smea"),
    *("sd_samplers_lcm", "sd_samplers_extra", "sd_samplers_timesteps_impl", "sd_samplers_cfgpp"),
)
"""How the names of the modules end that hold the hosts' sampler functions; namesakes elsewhere are other functions."""

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
    solver = solvers.SOLVERS.get(label) or (solvers.FUNCTIONS.get(core.__name__) if core is not None else None)
    if solver is None:
        return None
    if core is not None:
        names = core.__code__.co_names
        if core.__name__ in solvers.LEVELS:
            solver = solvers.LEVELS[core.__name__]
        elif "sigma_to_half_log_snr" in names and core.__name__ in solvers.SNR:
            solver = solvers.SNR[core.__name__]
        elif core.__module__.startswith("ldm_patched.") and core.__name__ in solvers.COMFY:
            solver = solvers.COMFY[core.__name__]
        elif core.__name__ in solvers.DENOISE_LAST and _looks_for_the_end(core):
            solver = solvers.DENOISE_LAST[core.__name__]
        elif core.__name__ == "sample_sa_solver" and "use_pece" in _locals(core):
            solver = None  # ersatzForge's, which decides by itself
        elif flow and "get_ancestral_step_flow" in names and _has_a_shift(denoiser):
            solver = solvers.FLOW[core.__name__] if core.__name__ in SPLITS else None
        elif flow and _switches(names, denoiser):
            solver = solvers.FLOW.get(core.__name__, solver)
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
