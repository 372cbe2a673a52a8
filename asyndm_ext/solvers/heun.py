"""Heun and Heun++: slopes at the ends of a step, averaged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import churn, churned_slope, to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import CHURN, Solver, named


@torch.no_grad()
def sample_heun(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Algorithm 2 (Heun steps) of Karras et al. (2022)."""
    for i in run.steps():
        x, d, _, sigma_hat, _ = churned_slope(run, i, x, churn(run, i, s_churn, s_tmin, s_tmax), s_noise)
        sigma_next = run.advance()
        dt = sigma_next - sigma_hat
        if run.nominal(i + 1) > 0:
            x_2 = x + d * dt
            d_2 = to_d(x_2, sigma_next, run.model(x_2))
            d = (d + d_2) / 2
        x = x + d * dt
    return x


@torch.no_grad()
def sample_heunpp2(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Heun++ (Li et al. 2023): looks two steps ahead, with weights that fall with sigma.

    Where a pixel will be after the next step is not decided yet: the look goes to where it would be if the region
    stayed as it is.
    """
    highest = run.nominal(0)
    for i in run.steps():
        x, d, _, sigma_hat, _ = churned_slope(run, i, x, churn(run, i, s_churn, s_tmin, s_tmax), s_noise)
        sigma_next = run.advance()
        dt = sigma_next - sigma_hat
        if i + 1 < run.count:
            x_2 = x + d * dt
            d_2 = to_d(x_2, sigma_next, run.model(x_2))
            if i + 2 == run.count:
                w_2 = sigma_next / (2 * highest)
                d = (1 - w_2) * d + w_2 * d_2
            else:
                sigma_after = run.ahead()
                x_3 = x_2 + d_2 * (sigma_after - sigma_next)
                d_3 = to_d(x_3, sigma_after, run.model_at(x_3, run.nominal(i + 2), sigma_after))
                w_2, w_3 = sigma_next / (3 * highest), sigma_after / (3 * highest)
                d = (1 - w_2 - w_3) * d + w_2 * d_2 + w_3 * d_3
        x = x + d * dt
    return x


REGISTERED = (
    Row(
        Solver(sample_heun, "sigma", CHURN, stand_ins=named("heun_og", "s_churn", "s_tmin", "s_noise")),
        labels=("Heun", "Heun Comfy"),
        functions=("sample_heun",),
    ),
    Row(
        Solver(sample_heunpp2, "sigma", CHURN, stand_ins=named("heunpp2", "s_churn", "s_tmin", "s_noise")),
        labels=("HeunPP2",),
        functions=("sample_heunpp2",),
    ),
)
