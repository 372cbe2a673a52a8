"""Heun and Heun++: slopes at the ends of a step, averaged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import churned_slope, to_d


@torch.no_grad()
def sample_heun(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Algorithm 2 (Heun steps) of Karras et al. (2022)."""
    for i in run.steps():
        x, d, sigma_hat, _ = churned_slope(run, i, x, s_churn, s_tmin, s_tmax, s_noise)
        sigma_next = run.advance()
        dt = sigma_next - sigma_hat
        if run.nominal(i + 1) > 0:
            x_2 = x + d * dt
            d_2 = to_d(x_2, sigma_next, run.model(x_2))
            d = (d + d_2) / 2
        x = x + d * dt
    return x
