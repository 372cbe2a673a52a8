"""Ancestral solvers of a rectified flow, where noise is added to a fading picture: ``x = (1-sigma)*x0 + sigma*noise``.

Noise beside a picture that stays (as the others add it) would leave too much of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import midway, to_d, toward


def ancestral_step_flow(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Down to ``sigma_down`` and up again, of each pixel's own interval.

    Returns:
        ``sigma_down``; by what the latent is then multiplied; how much fresh noise is added. A pixel that does not step
        is left as it is, also at sigma 1, where nothing of a picture is there to fade.
    """
    sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    left, left_down = 1 - sigma_next, 1 - sigma_down
    fade = torch.where(left_down > 0, left / left_down.clamp_min(torch.finfo(left.dtype).tiny), 1.0)
    return sigma_down, fade, (sigma_next**2 - (sigma_down * fade) ** 2).clamp_min(0).sqrt()


@torch.no_grad()
def sample_euler_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler steps to ``sigma_down``, then the picture fades and fresh noise comes, in each pixel's own interval."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        if run.nominal(i + 1) == 0:
            return denoised
        sigma_down, fade, renoise = ancestral_step_flow(sigma, sigma_next, eta)
        x = toward(x, denoised, sigma, sigma_down)
        if eta > 0:
            x = fade * x + run.randn_like(x) * s_noise * renoise
    return x


@torch.no_grad()
def sample_dpm_2_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-2 steps to ``sigma_down``, then the picture fades and fresh noise comes."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_down, fade, renoise = ancestral_step_flow(sigma, run.advance(), eta)
        nominal_down = ancestral_step_flow(run.scalar(i), run.scalar(i + 1), eta)[0]
        d = to_d(x, sigma, denoised)
        if nominal_down == 0:
            x = x + d * (sigma_down - sigma)
        else:
            sigma_mid = midway(sigma, sigma_down)
            x_2 = x + d * (sigma_mid - sigma)
            denoised_2 = run.model_at(x_2, midway(run.scalar(i), nominal_down), sigma_mid)
            x = x + to_d(x_2, sigma_mid, denoised_2) * (sigma_down - sigma)
            x = fade * x + run.randn_like(x) * s_noise * renoise
    return x
