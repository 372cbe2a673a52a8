"""Gradient estimation (Permenter & Yuan 2023): Euler steps along a slope extrapolated from the last one."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import look, to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver, cfgpp_solver


@torch.no_grad()
def sample_gradient_estimation(run: Run, x: Tensor, ge_gamma: float = 2.0, cfgpp: bool = False) -> Tensor:
    """The change of the slope is not divided by a step, so a pixel that hardly moved needs no care.

    Args:
        ge_gamma: how far the slope is extrapolated; 1 is Euler.
        cfgpp: slopes of the unguided answer, from the guided picture (CFG++).
    """
    last = None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        d = to_d(x, sigma, run.uncond() if cfgpp else denoised)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        dt = sigma_next - sigma
        x = denoised + d * sigma_next if cfgpp else x + d * dt
        if last is not None:
            x = x + (ge_gamma - 1) * (d - last) * dt
        last = d
    return x


REGISTERED = (
    Row(
        Solver(sample_gradient_estimation, "sigma", ("ge_gamma",)),
        labels=("Gradient Estimation",),
        functions=("sample_gradient_estimation",),
    ),
    Row(
        cfgpp_solver(partial(sample_gradient_estimation, cfgpp=True), "ge_gamma"),
        labels=("Gradient Estimation CFG++",),
        functions=("sample_gradient_estimation_cfg_pp",),
    ),
)
