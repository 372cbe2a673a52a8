"""Z-Sampling (Bai et al. 2024, arXiv 2412.10891): every step goes forth, back with less guidance, and forth again.

From level t to the next one s, with guidance g1 forth and g2 back::

    x_s  = step(x_t, t -> s, e_u + g1 d)
    x_t' = step(x_s, s -> t, e' = e_u + g2 d)     zag; the network sees x_s at the level of t
    x_s  = step(x_t', t -> s, e_u + g1 d)         zig

(Of a rectified flow it sees x_s at its own level, as the authors have it for SD3.5.)
The step is DDIM's without fresh noise, which in noise levels is Euler's: x + (s - t) e. All but the last step do so (no
noise can be read off a finished picture), and the network is called three times in these. Noise drawn in the step forth
would not come off on the way back, so there is none, whatever eta the other methods have.

Each formula holds per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asyndm_ext.rivals.guidance import projected_scale
from asyndm_ext.run import Run
from asyndm_ext.solvers.ddim import clean


@dataclass(frozen=True)
class _Space:
    """How a solver's space reads the model's answer and steps.

    Attributes:
        level: the run's current level, as the formulas take it (sigma, or alphas_cumprod).
        noise: the model's answer at a level, as noise. step: from one level to another with constant noise.
        free: ``(x, level)`` to the latent free of scale and its sigma: ``signal + sigma * noise``.
        denoised: the latent without that noise.
    """

    level: Callable[[Run, Tensor], Tensor]
    noise: Callable[[Tensor, Tensor, Tensor], Tensor]
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    free: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    denoised: Callable[[Tensor, Tensor, Tensor], Tensor]


_SIGMA = _Space(
    level=lambda run, level: level,
    noise=lambda x, answer, sigma: (x - answer) / sigma,
    step=lambda x, e, sigma, to: x + (to - sigma) * e,
    free=lambda x, sigma: (x, sigma),
    denoised=lambda x, e, sigma: x - sigma * e,
)
_TIMESTEP = _Space(
    level=lambda run, t: run.maps.between(run.host.noise_table.alpha_at, t),
    noise=lambda x, answer, alpha: answer,
    step=lambda x, e, alpha, to: to.sqrt() * clean(x, e, alpha) + (1 - to).sqrt() * e,
    free=lambda x, alpha: (x / alpha.sqrt(), ((1 - alpha) / alpha).sqrt()),
    denoised=clean,
)
_SPACES = {"sigma": _SIGMA, "timestep": _TIMESTEP}


@torch.no_grad()
def sample_zigzag(
    run: Run,
    x: Tensor,
    *,
    space: str,
    guidance: float,
    inversion: float = 0.0,
    rounds: int = 1,
    turns: int | None = None,
    published: bool = False,
    log: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Sample; the model has to tell its answer without the prompt.

    Args:
        run, x: as for any solver.
        space: "sigma" or "timestep", as the model's.
        guidance, inversion: g1, which the model guides with, and g2.
        rounds: how often a step goes back and forth; 0: plain sampling.
        turns: how many of the steps, from the first, go back; all but the last is the most.
        published: go back as the authors' program does, whose way back is that of the next step: from the level after
            s to s. The way forth is from t all the same.
        log: takes the equivalent guidance scale of each step, ``(B,)``.
    """
    the, turns = _SPACES[space], run.count - 1 if turns is None else min(turns, run.count - 1)
    share = inversion / guidance if guidance else 0.0
    for i in run.steps():
        nominal, exact = run.nominal(i), run.exact
        level = the.level(run, run.level)
        e = the.noise(x, run.model(x), level)
        e_u = the.noise(x, run.uncond(), level)
        run.report(i, x, the.denoised(x, e, level))
        to = the.level(run, run.advance())
        back = the.level(run, run.ahead()) if published and i < turns else to
        x_s = the.step(x, e, level, to)
        zag = (run.nominal(i + 1), run.exact, to) if run.host.flow else (nominal, exact, level)
        for _ in range(rounds if i < turns else 0):
            e_s = the.noise(x_s, run.model_at(x_s, *zag[:2]), zag[2])
            e_s_u = the.noise(x_s, run.uncond(), zag[2])
            x_t = the.step(x_s, e_s_u + share * (e_s - e_s_u), back, to if published else level)
            x_s = the.step(x_t, the.noise(x_t, run.model_at(x_t, nominal, exact), level), level, to)
        if log is not None and guidance:
            (x_free, sigma), (x_s_free, sigma_s) = the.free(x, level), the.free(x_s, to)
            moved = x_s_free - x_free - (sigma_s - sigma) * e_u
            log(projected_scale(moved, (sigma_s - sigma) * (e - e_u) / guidance))
        x = x_s
    return x
