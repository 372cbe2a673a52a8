"""DDPM on noise levels."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import look, to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver


@torch.no_grad()
def sample_ddpm(run: Run, x: Tensor) -> Tensor:
    """Ho et al. (2020), Algorithm 2, in VP space; a pixel that stands still gets no noise."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        eps = to_d(x, sigma, denoised)
        alpha_bar, alpha_bar_next = 1 / (sigma**2 + 1), 1 / (sigma_next**2 + 1)
        alpha = alpha_bar / alpha_bar_next
        beta = (1 - alpha).clamp_min(0)
        x = (x * alpha_bar.sqrt() - beta / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt()
        if run.nominal(i + 1) > 0:
            x = x + (beta * (1 - alpha_bar_next) / (1 - alpha_bar)).sqrt() * run.randn_like(x)
            x = x / alpha_bar_next.sqrt()
    return x


REGISTERED = (Row(Solver(sample_ddpm, "sigma"), labels=("DDPM",), functions=("sample_ddpm",)),)
