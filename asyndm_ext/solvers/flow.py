"""Rectified flow: sigma from 1 to 0, ``x = (1 - sigma) * clean + sigma * noise``, denoised ``x - sigma * v``.

The probability flow is the same equation as on noise levels, ``dx/dsigma = (x - denoised) / sigma``, so solvers without
noise of their own run unchanged. What differs is fresh noise: here it also takes signal away. There are three kinds:

- hosts that run the formulas for noise levels anyway (A1111's SD3): nothing to do;
- ancestral solvers with a form for flows (``RF``): below;
- solvers that count in half-log-SNR: :mod:`asyndm_ext.solvers.half_log_snr`, a change of variables.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import inside_step, look, midway, to_d, toward
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, Solver, named

# The level at which DPM++ 2S a looks from a start at sigma 1, where half-log-SNR has no value; the host's.
_NEAR_ONE = 0.9999


def downstep(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """An ancestral step of a flow: ``(sigma_down, signal, fresh)``.

    Down to ``sigma_down``, then ``signal`` times the latent and ``fresh`` times noise bring it to ``sigma_next`` with
    the signal that belongs there. A pixel that stands still gets ``(sigma, 1, 0)``, even at sigma 1, without signal.
    """
    sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    alpha_down = 1 - sigma_down
    signal = torch.where(alpha_down > 0, (1 - sigma_next) / torch.where(alpha_down > 0, alpha_down, 1.0), 1.0)
    fresh = (sigma_next**2 - sigma_down**2 * signal**2).clamp_min(0).sqrt()
    return sigma_down, signal, fresh


@torch.no_grad()
def sample_euler_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler a for flows."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        x = toward(x, denoised, sigma, sigma_down)
        if eta > 0:
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


@torch.no_grad()
def sample_euler_a2(
    run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, extrapolation: float = 0.425
) -> Tensor:
    """Euler a for flows with the mean of two noises, stretched: to sqrt(2) times it would be one noise."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        x = toward(x, denoised, sigma, sigma_down)
        if eta > 0 and s_noise != 0:
            noise = (run.randn_like(x) + run.randn_like(x)) / 2
            x = signal * x + (1 + extrapolation) * noise * s_noise * fresh
    return x


@torch.no_grad()
def sample_dpm_2_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM2 a for flows."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        nominal_down, _, _ = downstep(run.scalar(i), run.scalar(i + 1), eta)
        d = to_d(x, sigma, denoised)
        if nominal_down == 0:
            x = x + d * (sigma_down - sigma)
        else:
            sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, partial(halfway_down, eta=eta))
            x_2 = x + d * (sigma_mid - sigma)
            denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
            x = x + to_d(x_2, sigma_mid, denoised_2) * (sigma_down - sigma)
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


@torch.no_grad()
def sample_dpmpp_2s_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM++ 2S a for flows: the second look is halfway in half-log-SNR."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = toward(x, denoised, sigma, sigma_next)
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, partial(halfway_down_in_snr, eta=eta))
        x_2 = toward(x, denoised, sigma, sigma_mid)
        denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
        x = toward(x, denoised_2, sigma, sigma_down)
        if eta > 0:
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


def halfway_down(sigma: Tensor, sigma_next: Tensor, eta: float) -> Tensor:
    """Halfway to where an ancestral step of a flow goes down to, in log-sigma."""
    return midway(sigma, downstep(sigma, sigma_next, eta)[0])


def halfway_down_in_snr(sigma: Tensor, sigma_next: Tensor, eta: float) -> Tensor:
    """The same in half-log-SNR."""
    return halfway_in_snr(sigma, downstep(sigma, sigma_next, eta)[0])


def halfway_in_snr(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Halfway in half-log-SNR of a flow, where there is one; just below sigma 1 for a pixel that starts there."""
    middle = torch.sigmoid((torch.logit(sigma) + torch.logit(sigma_next)) / 2)
    middle = torch.where(sigma >= 1, _NEAR_ONE, middle)
    return torch.where(sigma_next > 0, middle, sigma)


@torch.no_grad()
def sample_lcm_flow(run: Run, x: Tensor) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023) of a flow."""
    for i in run.steps():
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        x = denoised
        if run.nominal(i + 1) > 0:
            x = (1 - sigma_next) * x + sigma_next * run.randn_like(x)
    return x


REGISTERED = (
    Row(
        Solver(sample_euler_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        labels=("Euler A Comfy RF",),
        functions=("sample_euler_ancestral_RF",),
        flow=("sample_euler_ancestral",),
    ),
    Row(
        Solver(
            sample_euler_a2,
            "sigma",
            stand_ins=named("euler_a2", "eta", "s_noise", "extrapolation"),
            flow_only=True,
        ),
        labels=("Euler A2",),
        functions=("sample_euler_a2",),
    ),
    Row(
        Solver(sample_dpm_2_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        functions=("sample_dpm_2_ancestral_RF",),
        flow=("sample_dpm_2_ancestral",),
    ),
    Row(
        Solver(sample_dpmpp_2s_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        labels=("DPM++ 2S Ancestral Comfy RF",),
        functions=("sample_dpmpp_2s_ancestral_RF",),
        flow=("sample_dpmpp_2s_ancestral",),
    ),
    Row(Solver(sample_lcm_flow, "sigma"), flow=("sample_lcm",)),
)
