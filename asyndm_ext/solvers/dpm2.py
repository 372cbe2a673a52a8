"""DPM2 and DPM2 a: the slope halfway through a step, in log-sigma, carries the whole step."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import (
    ancestral_step,
    churn,
    churned_slope,
    inside_step,
    look,
    midway,
    midway_down,
    to_d,
)
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, CHURN, Solver


def midway_raised(sigma: Tensor, sigma_next: Tensor, gamma: float) -> Tensor:
    """Halfway from where the churn has raised sigma to."""
    return midway(sigma * (gamma + 1), sigma_next)


@torch.no_grad()
def sample_dpm_2(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022) with the churn of Karras et al. (2022)."""
    for i in run.steps():
        sigma, gamma = run.level, churn(run, i, s_churn, s_tmin, s_tmax)
        x, d, _, sigma_hat, _ = churned_slope(run, i, x, gamma, s_noise)
        sigma_next = run.advance()
        if run.nominal(i + 1) > 0:
            raised = partial(midway_raised, gamma=gamma)
            sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, raised)
            x_2 = x + d * (sigma_mid - sigma_hat)
            denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
            d = to_d(x_2, sigma_mid, denoised_2)
        x = x + d * (sigma_next - sigma_hat)
    return x


@torch.no_grad()
def sample_dpm_2_ancestral(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-2 steps to ``sigma_down``, then fresh noise of each pixel's own interval."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        nominal_down, _ = ancestral_step(run.scalar(i), run.scalar(i + 1), eta)
        d = to_d(x, sigma, denoised)
        if nominal_down == 0:  # no noise either then: k-diffusion's rule
            x = x + d * (sigma_down - sigma)
        else:
            sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, partial(midway_down, eta=eta))
            x_2 = x + d * (sigma_mid - sigma)
            denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
            x = x + to_d(x_2, sigma_mid, denoised_2) * (sigma_down - sigma)
            x = x + run.randn_like(x) * s_noise * sigma_up
    return x


REGISTERED = (
    Row(Solver(sample_dpm_2, "sigma", CHURN), labels=("DPM2",), functions=("sample_dpm_2",)),
    Row(
        Solver(sample_dpm_2_ancestral, "sigma", ANCESTRAL, stand_ins=(("s_noise", "dpm2_ancestral_s_noise"),)),
        labels=("DPM2 a",),
        functions=("sample_dpm_2_ancestral",),
    ),
)
