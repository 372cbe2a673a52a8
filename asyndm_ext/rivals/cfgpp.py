"""CFG++ (Chung et al. 2024, arXiv 2406.08070): interpolate between the answers, and put back the unguided noise.

In noise levels, with lambda in [0, 1]::

    e_l = e_u + lambda (e_c - e_u)
    x_s = (x - sigma e_l) + sigma_s e_u

The steps are the hosts' own samplers with CFG++ in their names (:mod:`asyndm_ext.solvers.cfgpp` and
:func:`asyndm_ext.solvers.ddim.sample_ddim_cfgpp`). As the WebUI has it for DDIM, lambda is the CFG scale divided by
12.5, so that the scale 5 is the 0.4 of the AsynDM paper (Table 3).

The same step written as plain guidance: ``x + (sigma_s - sigma) (e_u + w d)`` with
``w = lambda sigma / (sigma - sigma_s)``. So CFG++ is plain CFG at a scale that changes over the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.solvers.cfgpp import sample_euler_ancestral_cfgpp, sample_euler_cfgpp
from asyndm_ext.solvers.ddim import renoise, sample_ddim_cfgpp
from asyndm_ext.solvers.helpers import ancestral_step
from asyndm_ext.solvers.solver import Solver

WHOLE = 12.5
"""The CFG scale that is lambda 1."""

SIBLINGS: dict[str, str] = {
    "DDIM": "DDIM CFG++",
    "Euler": "Euler CFG++",
    "Euler a": "Euler Ancestral CFG++",
    "DPM++ 2M": "DPM++ 2M CFG++",
    "DPM++ 2S a": "DPM++ 2S Ancestral CFG++",
    "DPM++ SDE": "DPM++ SDE CFG++",
    "DPM++ 3M SDE": "DPM++ 3M SDE CFG++",
}
"""A sampler, and the one that is CFG++ on it."""


_ETA = {sample_ddim_cfgpp: 0.0, sample_euler_cfgpp: 0.0, sample_euler_ancestral_cfgpp: 1.0}
"""The samplers whose steps are the formula above, and how much fresh noise they draw by themselves."""


def sibling(solver: str) -> str:
    """The CFG++ sampler. Raises ValueError: there is none."""
    if solver not in SIBLINGS:
        raise ValueError(f"CFG++ has no step for the sampler {solver!r}; choose one of: {', '.join(SIBLINGS)}")
    return SIBLINGS[solver]


def equivalent_scales(
    levels: Sequence[Tensor], solver: Solver, lam: float, eta: float | None, table: NoiseTable
) -> list[Tensor]:
    """Of each step, ``(B,)``; nothing for a sampler whose steps are not the formula above.

    Args:
        levels: of each step's beginning, and of the last one's end, ``(B,1,H,W)`` float64.
        solver: a CFG++ sampler.
        lam: lambda.
        eta: how much fresh noise it draws; None: as much as it does by itself.
        table: the model's noise levels, for a solver that counts in timesteps.
    """
    own = _ETA.get(solver.sample)
    if own is None:
        return []
    eta, scales = own if eta is None else eta, []
    for here, there in pairwise(levels):
        if solver.space == "timestep":
            alpha, after = table.alpha_at(here), table.alpha_at(there)
            sigma, down = ((1 - alpha) / alpha).sqrt(), renoise(alpha, after, eta)[0] / after.sqrt()
        elif solver.sample is sample_euler_cfgpp:
            sigma, down = here, there
        else:
            sigma, down = here, ancestral_step(here, there, eta)[0]
        scales.append(equivalent_step_scale(lam, sigma, down))
    return scales


def equivalent_step_scale(lam: float, sigma: Tensor, sigma_down: Tensor) -> Tensor:
    """The plain scale w of a step, ``(B,)``: the one nearest to what the pixels get, those that move far first.

    Args:
        lam: lambda.
        sigma, sigma_down: levels before the step and where it leads to before fresh noise is added, ``(B,1,H,W)``.
    """
    sigma, way = sigma.flatten(1), (sigma - sigma_down).flatten(1)
    return lam * (sigma * way).sum(dim=1) / (way**2).sum(dim=1)
