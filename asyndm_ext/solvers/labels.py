"""The hosts' names for their samplers: in which order we list them, and which have no solver here."""

from __future__ import annotations

LISTED = (
    # AUTOMATIC1111's and Forge's, as they list them.
    *("Euler", "Euler a", "Heun", "DPM2", "DPM2 a"),
    *("DPM++ 2M", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"),
    *("LMS", "LCM", "HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM", "DPM fast", "DPM adaptive", "Restart"),
    *("DDIM", "DDIM CFG++", "PLMS", "UniPC"),
    # reForge's and Forge Classic's.
    *("Euler CFG++", "Euler Ancestral CFG++", "DPM++ 2S Ancestral CFG++", "DPM++ 2M CFG++", "DPM++ SDE CFG++"),
    *("DPM++ 2M SDE CFG++", "DPM++ 3M SDE CFG++"),
    *("RES Solver", "RES Multistep", "RES Multistep CFG++"),
    *("RES Multistep Ancestral", "RES Multistep Ancestral CFG++"),
    *("Gradient Estimation", "Gradient Estimation CFG++"),
    *("ER SDE", "SEEDS 2 DP", "SEEDS 3 DP", "SA-Solver", "SA-Solver-Pece"),
    *("Kohaku_LoNyu_Yog", "Euler Negative", "Euler A2", "Euler A Comfy RF", "DPM++ 2S Ancestral Comfy RF"),
    # Other names, some for a schedule type that goes with them.
    *("DPM++ SDE Classic", "Euler A Turbo", "DPM++ 2M Turbo", "DPM++ 2M SDE Turbo"),
    *("Euler Comfy", "Euler A Comfy", "Heun Comfy", "DPM++ 2S Ancestral Comfy"),
    *("DPM++ SDE Comfy", "DPM++ 2M Comfy", "DPM++ 2M SDE Comfy", "DPM++ 3M SDE Comfy"),
)
"""The order of the names in lists. One that is not here comes after these."""

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
