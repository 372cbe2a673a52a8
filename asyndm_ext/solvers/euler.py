"""Euler and Euler ancestral."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import ancestral_step, to_d


@torch.no_grad()
def sample_euler(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022); churn is decided on the nominal sigma."""
    for i in run.steps():
        sigma, nominal = run.level, run.nominal(i)
        gamma = min(s_churn / run.count, math.sqrt(2) - 1) if s_tmin <= nominal <= s_tmax else 0.0
        eps = run.randn_like(x) * s_noise  # drawn in every step, as k-diffusion does, so that seeds match
        sigma_hat = sigma * (gamma + 1)
        if gamma > 0:
            x = x + eps * (sigma_hat**2 - sigma**2).sqrt()
            denoised = run.model_at(x, nominal * (gamma + 1), run.schedule.level * (gamma + 1))
        else:
            denoised = run.model(x)
        run.report(i, x, denoised, churn=gamma)
        sigma_next = run.advance()
        x = x + to_d(x, sigma_hat, denoised) * (sigma_next - sigma_hat)
    return x


@torch.no_grad()
def sample_euler_ancestral(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler steps to ``sigma_down``, then fresh noise of each pixel's own interval."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x + to_d(x, sigma, denoised) * (sigma_down - sigma)
        if run.nominal(i + 1) > 0:
            x = x + run.randn_like(x) * s_noise * sigma_up
    return x
