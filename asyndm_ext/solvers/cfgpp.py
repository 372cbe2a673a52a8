"""CFG++ (Chung et al. 2024) on noise levels: the guided picture is noised again with the unguided noise.

The two differ by the guidance, so a pixel whose level stays does not stay itself: each step pulls it towards the
prompt. Every pixel gets as many pulls as the host's have.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.dpmpp_sde import tree_ends
from asyndm_ext.solvers.helpers import (
    LARGEST_RATIO_BEND,
    ancestral_step,
    extrapolation,
    inside_step,
    largest_ratio,
    look,
    midway_down,
    part_way,
    to_d,
    toward,
)
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, cfgpp_solver


@torch.no_grad()
def sample_euler_cfgpp(run: Run, x: Tensor) -> Tensor:
    """Euler's step is DDIM's: denoised plus noise, here the unguided noise."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        x = denoised + to_d(x, sigma, run.uncond()) * sigma_next
    return x


@torch.no_grad()
def sample_euler_ancestral_cfgpp(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """The same with ancestral noise; a rectified flow's latent is split into signal and noise first."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        unguided = run.uncond()
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        alpha, alpha_next = (1 - sigma, 1 - sigma_next) if run.host.flow else (torch.ones_like(sigma),) * 2
        d = to_d(x, sigma, alpha * unguided)
        down, up = signal_step(sigma, alpha, sigma_next, alpha_next, eta)
        x = alpha_next * denoised + down * d
        if eta > 0 and s_noise > 0:
            x = x + up * s_noise * run.randn_like(x)
    return x


def signal_step(
    sigma: Tensor, alpha: Tensor, sigma_next: Tensor, alpha_next: Tensor, eta: float
) -> tuple[Tensor, Tensor]:
    """:func:`ancestral_step` by noise per signal, ``(down, up)`` in units of the latent; all noise where no signal is.

    A pixel that starts without any signal (a flow at sigma 1) takes fresh noise only, whatever eta > 0, as the host's.
    """
    if not eta:
        return sigma_next, torch.zeros_like(sigma)
    share = (1 - (alpha * sigma_next) ** 2 / (alpha_next * sigma).clamp_min(torch.finfo(sigma.dtype).tiny) ** 2).sqrt()
    up = torch.where(alpha > 0, torch.minimum(sigma_next, eta * sigma_next * share.nan_to_num(0.0)), sigma_next)
    # Without signal on both sides the pixel has not moved yet.
    up = torch.where((alpha > 0) | (alpha_next > 0), up, 0.0)
    return (sigma_next**2 - up**2).clamp_min(0).sqrt(), up


@torch.no_grad()
def sample_dpmpp_2s_ancestral_cfgpp(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(2S), carried on from the unguided answer; for the whole step from that of the second call."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        unguided = run.uncond()
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        nominal_down, _ = ancestral_step(run.scalar(i), run.scalar(i + 1), eta)
        if nominal_down > 0:
            sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, partial(midway_down, eta=eta))
            x_2 = toward(x + denoised - unguided, denoised, sigma, sigma_mid)
            denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
            x = toward(x + denoised - run.uncond(), denoised_2, sigma, sigma_down)
        else:
            x = denoised + to_d(x, sigma, unguided) * sigma_down
        if run.nominal(i + 1) > 0:
            x = x + run.randn_like(x) * s_noise * sigma_up
    return x


@torch.no_grad()
def sample_dpmpp_2m_cfgpp(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M); the slope is from the last unguided answer to the guided one, so the guidance is part of it.

    For that reason a pixel may not stretch it as far as 2M does.
    """
    last_unguided, h_last = None, None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        unguided = run.uncond()
        h = sigma.log() - sigma_next.log()
        x = denoised + (sigma_next / sigma) * (x - unguided)
        if last_unguided is not None and h_last is not None and run.nominal(i + 1) > 0:
            slope = extrapolation(h, h_last, largest_ratio(run, i, 1, LARGEST_RATIO_BEND)) / 2
            x = x - torch.expm1(-h) * slope * (denoised - last_unguided)
        last_unguided, h_last = unguided, h
    return x


@torch.no_grad()
def sample_dpmpp_sde_cfgpp(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Tensor:
    """DPM-Solver++ (stochastic); the whole step is Euler's, from the two answers of the second model call."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        nominal, nominal_mid, nominal_next = tree_ends(run, i, r)
        sigma_mid = run.maps.between(partial(part_way, share=r), sigma, sigma_next)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_mid, eta)
        x_2 = toward(x, denoised, sigma, sigma_down) + run.noise_sampler(nominal, nominal_mid) * s_noise * sigma_up
        denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = denoised_2 + to_d(x, sigma, run.uncond()) * sigma_down
        x = x + run.noise_sampler(nominal, nominal_next) * s_noise * sigma_up
    return x


REGISTERED = (
    Row(cfgpp_solver(sample_euler_cfgpp), labels=("Euler CFG++",), functions=("sample_euler_cfg_pp",)),
    Row(
        cfgpp_solver(sample_euler_ancestral_cfgpp, *ANCESTRAL, prefix="euler_ancestral_cfg_pp"),
        labels=("Euler Ancestral CFG++", "Euler a CFG++"),
        functions=("sample_euler_ancestral_cfg_pp",),
    ),
    # The ancestral one without fresh noise, which splits a flow's latent into signal and noise.
    Row(cfgpp_solver(partial(sample_euler_ancestral_cfgpp, eta=0.0)), flow=("sample_euler_cfg_pp",)),
    Row(
        cfgpp_solver(sample_dpmpp_2s_ancestral_cfgpp, *ANCESTRAL, prefix="dpmpp_2s_ancestral_cfg_pp"),
        labels=("DPM++ 2S Ancestral CFG++",),
        functions=("sample_dpmpp_2s_ancestral_cfg_pp",),
    ),
    Row(cfgpp_solver(sample_dpmpp_2m_cfgpp), labels=("DPM++ 2M CFG++",), functions=("sample_dpmpp_2m_cfg_pp",)),
    Row(
        cfgpp_solver(sample_dpmpp_sde_cfgpp, *ANCESTRAL, "r", prefix="dpmpp_sde_cfg_pp", brownian=True),
        labels=("DPM++ SDE CFG++",),
        functions=("sample_dpmpp_sde_cfg_pp",),
    ),
)
