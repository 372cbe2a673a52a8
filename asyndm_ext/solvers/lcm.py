"""Latent consistency models."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver


@torch.no_grad()
def sample_lcm(run: Run, x: Tensor) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023): all the way to the image, then back to the next level."""
    for i in run.steps():
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        x = denoised
        if run.nominal(i + 1) > 0:
            x = x + sigma_next * run.randn_like(x)
    return x


REGISTERED = (Row(Solver(sample_lcm, "sigma"), labels=("LCM",), functions=("sample_lcm",)),)
