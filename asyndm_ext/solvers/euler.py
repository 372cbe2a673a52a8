"""Euler and Euler ancestral."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import ancestral_step, churn, churned_slope, look, to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, CHURN, Solver, named


@torch.no_grad()
def sample_euler(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022)."""
    for i in run.steps():
        x, d, _, sigma_hat, _ = churned_slope(run, i, x, churn(run, i, s_churn, s_tmin, s_tmax), s_noise)
        sigma_next = run.advance()
        x = x + d * (sigma_next - sigma_hat)
    return x


@torch.no_grad()
def sample_euler_ancestral(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler steps to ``sigma_down``, then fresh noise of each pixel's own interval."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x + to_d(x, sigma, denoised) * (sigma_down - sigma)
        if run.nominal(i + 1) > 0:
            x = x + run.randn_like(x) * s_noise * sigma_up
    return x


@torch.no_grad()
def sample_euler_negative(
    run: Run, x: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Tensor:
    """Euler with a churn that is never below its ceiling; the third and the fourth step turn the latent's sign."""
    for i in run.steps():
        gamma = max(s_churn / run.count, math.sqrt(2) - 1) if s_tmin <= run.nominal(i) <= s_tmax else 0.0
        x, d, _, sigma_hat, _ = churned_slope(run, i, x, gamma, -s_noise)  # the host takes the noise away
        x = x + d * (run.advance() - sigma_hat)
        if i in (2, 3) and run.nominal(i + 1) > 0:
            x = -x
    return x


@torch.no_grad()
def sample_kohaku(
    run: Run,
    x: Tensor,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    eta: float = 1.0,
) -> Tensor:
    """Kohaku LoNyu Yog: in the first half an ancestral Euler step whose slope is averaged with two more.

    The second slope is the negative latent's, the third is where the mean of the first two leads; both at the level
    that the step starts from.
    """
    for i in run.steps():
        sigma = run.level
        gamma = churn(run, i, s_churn, s_tmin, s_tmax)
        x, d, _, sigma_hat, nominal_hat = churned_slope(run, i, x, gamma, s_noise)
        level_hat = run.exact * (gamma + 1)
        sigma_down, sigma_up = ancestral_step(sigma, run.advance(), eta)
        dt = sigma_down - sigma
        if i > run.count / 2:
            x = x + d * dt
            continue

        def slope(y: Tensor) -> Tensor:
            return to_d(y, sigma_hat, run.model_at(y, nominal_hat, level_hat))  # noqa: B023

        x = x + (d + slope(x + (d + slope(-x)) / 2 * dt)) / 2 * dt
        x = x + run.randn_like(x) * s_noise * sigma_up
    return x


REGISTERED = (
    Row(
        Solver(sample_euler, "sigma", CHURN, stand_ins=named("euler_og", "s_churn", "s_tmin", "s_noise")),
        labels=("Euler", "Euler Comfy"),
        functions=("sample_euler",),
    ),
    Row(
        Solver(sample_euler_ancestral, "sigma", ANCESTRAL, stand_ins=named("euler_ancestral_og", *ANCESTRAL)),
        labels=("Euler a", "Euler A Turbo", "Euler A Comfy"),
        functions=("sample_euler_ancestral",),
    ),
    Row(
        Solver(
            sample_euler_negative, "sigma", CHURN, stand_ins=named("euler_negative", "s_churn", "s_tmin", "s_noise")
        ),
        labels=("Euler Negative",),
        functions=("sample_euler_negative",),
    ),
    Row(
        Solver(
            sample_kohaku,
            "sigma",
            (*CHURN, "eta"),
            stand_ins=named("kohaku_lonyu_yog", "s_churn", "s_tmin", "s_noise", "eta"),
        ),
        labels=("Kohaku_LoNyu_Yog",),
        functions=("sample_Kohaku_LoNyu_Yog",),
    ),
)
