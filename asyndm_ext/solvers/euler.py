"""Euler and Euler ancestral."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import ancestral_step, churned_slope, to_d


@torch.no_grad()
def sample_euler(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022)."""
    for i in run.steps():
        x, d, sigma_hat, _ = churned_slope(run, i, x, s_churn, s_tmin, s_tmax, s_noise)
        sigma_next = run.advance()
        x = x + d * (sigma_next - sigma_hat)
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
