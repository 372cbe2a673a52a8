"""Shapes and limits shared by the solvers; all elementwise on maps ``(B,1,H,W)`` and on scalar tensors alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from asyndm_ext.run import Run

# A pixel whose step is more than this many times its last one takes it first order: the slope over a tiny step is
# mostly what changed around the pixel, and would be magnified. Bends (slopes of slopes) are magnified more.
LARGEST_RATIO = 10.0
LARGEST_RATIO_BEND = 3.0

# Below this the closed forms of phi_2 and phi_3 lose more digits than five terms of their series.
_SERIES_BELOW = 1e-2


def look(run: Run, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How most steps begin: the model is asked, the host is told, the clock moves on.

    Returns:
        the sigma map that the step starts at, denoised, and the sigma map that it leads to.
    """
    sigma = run.level
    denoised = run.model(x)
    run.report(i, x, denoised)
    return sigma, denoised, run.advance()


def inside_step(
    run: Run, i: int, sigma: Tensor, sigma_next: Tensor, at: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Where the second look of a two-stage step goes: a level of every pixel inside its step, and the host's.

    Args:
        at: the level as a function of where the step starts and what it leads to, as :func:`midway`.

    Returns:
        the sigma map and the nominal sigma, a scalar tensor.
    """
    return run.maps.between(at, sigma, sigma_next), at(run.scalar(i), run.scalar(i + 1))


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Karras ODE derivative ``(x - denoised) / sigma``."""
    return (x - denoised) / sigma


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """``(sigma_down, sigma_up)`` of each pixel's own interval, as k-diffusion's ``get_ancestral_step``."""
    variance = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).clamp_min(0)
    sigma_up = torch.minimum(sigma_next, eta * variance.sqrt())
    return (sigma_next**2 - sigma_up**2).clamp_min(0).sqrt(), sigma_up


def midway(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Halfway in log-sigma; a pixel that steps down to 0 has no such level and is looked at where it is."""
    return torch.where(sigma_next > 0, (sigma * sigma_next).sqrt(), sigma)


def midway_down(sigma: Tensor, sigma_next: Tensor, eta: float) -> Tensor:
    """Halfway to where an ancestral step goes down to."""
    return midway(sigma, ancestral_step(sigma, sigma_next, eta)[0])


def part_way(sigma: Tensor, sigma_next: Tensor, share: float) -> Tensor:
    """At a share of the way in log-sigma; as :func:`midway` where sigma_next is 0."""
    if share == 0.5:
        return midway(sigma, sigma_next)  # roots are rounded alike for every pixel, powers are not
    return torch.where(sigma_next > 0, sigma * (sigma_next / sigma) ** share, sigma)


def toward(x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """From sigma to sigma_next with a constant denoised: DPM-Solver++(1), which is DDIM, and Euler in sigma."""
    ratio = sigma_next / sigma
    return ratio * x + (1 - ratio) * denoised


def largest_ratio(
    run: Run, i: int, back: int, limit: float = LARGEST_RATIO, axis: Callable[[Tensor], Tensor] = torch.log
) -> float:
    """How long a pixel's step may be as a multiple of its step ``back`` steps ago, for a slope from there to be used.

    Args:
        limit: the multiple. Where the host's own schedule goes beyond it (the end of Beta, Exponential's step
            to 0), so may a pixel.
        axis: what steps are measured in, a function of sigma.
    """
    here, before = (abs(axis(run.scalar(j + 1)) - axis(run.scalar(j))) for j in (i, i - back))
    return max(limit, 1.01 * float(here / before))


def extrapolation(h: Tensor, h_last: Tensor, limit: float) -> Tensor:
    """``h / h_last`` per pixel, 0 where the earlier step was too short for its slope to mean anything."""
    tiny = torch.finfo(h.dtype).tiny
    return torch.where(h < limit * h_last, h / h_last.clamp_min(tiny), 0.0)


def phi_2(h: Tensor) -> Tensor:
    """``(exp(-h) - 1) / h + 1``, also at h = 0."""
    series = h / 2 * (1 - h / 3 * (1 - h / 4 * (1 - h / 5 * (1 - h / 6))))
    return torch.where(h < _SERIES_BELOW, series, torch.expm1(-h) / h + 1)


def phi_3(h: Tensor) -> Tensor:
    """``phi_2(h) / h - 1/2``, also at h = 0."""
    series = -h / 6 * (1 - h / 4 * (1 - h / 5 * (1 - h / 6 * (1 - h / 7))))
    return torch.where(h < _SERIES_BELOW, series, (torch.expm1(-h) / h + 1) / h - 0.5)


def churn(run: Run, i: int, s_churn: float, s_tmin: float, s_tmax: float) -> float:
    """By what share Algorithm 2 of Karras et al. (2022) raises sigma before a step; decided on the nominal sigma."""
    return max(0.0, min(s_churn / run.count, math.sqrt(2) - 1)) if s_tmin <= run.nominal(i) <= s_tmax else 0.0


def churned_slope(
    run: Run, i: int, x: Tensor, gamma: float, s_noise: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The beginning of a step of Algorithm 2 of Karras et al. (2022): raise the noise, call the model.

    Args:
        gamma: by what share of sigma, 0 for not at all.

    Returns:
        the latent, its derivative, denoised, the raised sigma map and the raised nominal sigma (a scalar tensor).
    """
    sigma, nominal = run.level, run.nominal(i)
    eps = run.randn_like(x) * s_noise  # drawn in every step, as k-diffusion does, so that seeds match
    sigma_hat = sigma * (gamma + 1)
    if gamma > 0:
        x = x + eps * (sigma_hat**2 - sigma**2).sqrt()
        denoised = run.model_at(x, nominal * (gamma + 1), run.exact * (gamma + 1))
    else:
        denoised = run.model(x)
    run.report(i, x, denoised, churn=gamma)
    return x, to_d(x, sigma_hat, denoised), denoised, sigma_hat, run.scalar(i) * (gamma + 1)
