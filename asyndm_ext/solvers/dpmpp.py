"""The DPM-Solver++ family without a diffusion term: 2M, and 2S with ancestral noise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import (
    ancestral_step,
    extrapolation,
    inside_step,
    largest_ratio,
    look,
    midway_down,
    toward,
)
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, Solver, named


@torch.no_grad()
def sample_dpmpp_2m(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022); every pixel has its own step sizes h and h_last in log-sigma."""
    old_denoised, h_last = None, None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        h = sigma.log() - sigma_next.log()
        if old_denoised is None or h_last is None or run.nominal(i + 1) == 0:
            denoised_d = denoised
        else:
            slope = extrapolation(h, h_last, largest_ratio(run, i, 1)) / 2
            denoised_d = (1 + slope) * denoised - slope * old_denoised
        x = (sigma_next / sigma) * x - torch.expm1(-h) * denoised_d
        old_denoised, h_last = denoised, h
    return x


@torch.no_grad()
def sample_dpmpp_2s_ancestral(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(2S) steps to ``sigma_down``, then fresh noise of each pixel's own interval."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        nominal_down, _ = ancestral_step(run.scalar(i), run.scalar(i + 1), eta)
        if nominal_down > 0:
            sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, partial(midway_down, eta=eta))
            x_2 = toward(x, denoised, sigma, sigma_mid)
            denoised = run.model_at(x_2, nominal_mid, sigma_mid)
        x = toward(x, denoised, sigma, sigma_down)
        if run.nominal(i + 1) > 0:
            x = x + run.randn_like(x) * s_noise * sigma_up
    return x


REGISTERED = (
    Row(
        Solver(sample_dpmpp_2m, "sigma"),
        labels=("DPM++ 2M", "DPM++ 2M Turbo", "DPM++ 2M Comfy"),
        functions=("sample_dpmpp_2m",),
    ),
    Row(
        Solver(sample_dpmpp_2s_ancestral, "sigma", ANCESTRAL, stand_ins=named("dpm_2s_ancestral_og", *ANCESTRAL)),
        labels=("DPM++ 2S a", "DPM++ 2S Ancestral Comfy"),
        functions=("sample_dpmpp_2s_ancestral",),
    ),
)
