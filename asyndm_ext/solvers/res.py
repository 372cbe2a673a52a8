"""RES, the refined exponential solver (Zhang et al. 2023, arXiv 2308.02157), in one call more or in many steps."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import (
    LARGEST_RATIO,
    ancestral_step,
    extrapolation,
    inside_step,
    look,
    midway,
    phi_2,
    to_d,
    toward,
)
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, Solver, cfgpp_solver


@torch.no_grad()
def sample_res_solver(run: Run, x: Tensor) -> Tensor:
    """Algorithm 2 with the second-order step of Algorithm 1 (c2 = 1/2), then the picture at the lowest level.

    For that last call the host takes the level that the step before began at; so does each pixel here.
    """
    before = (run.nominal(0), run.exact)
    for i in run.steps():
        if i + 1 == run.count:
            denoised = run.model_at(x, *before)
            run.report(i, x, denoised)
            run.advance()
            return denoised
        sigma, before = run.level, (run.nominal(i), run.exact)
        denoised = run.model(x)
        sigma_next = run.advance()
        sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, midway)
        x_2 = toward(x, denoised, sigma, sigma_mid)
        denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)
        run.report(i, x, denoised)
        h = sigma.log() - sigma_next.log()
        x = toward(x, denoised, sigma, sigma_next) + 2 * phi_2(h) * (denoised_2 - denoised)
    return x


@torch.no_grad()
def sample_res_multistep(run: Run, x: Tensor, eta: float = 0.0, s_noise: float = 1.0, cfgpp: bool = False) -> Tensor:
    """The multistep variant: the slope is that of the last two answers, over the step that was denoised then.

    Args:
        eta: ancestral noise.
        cfgpp: go by the unguided answers and add the guidance in each step (CFG++).
    """
    old, h_last, nominal_h_last = None, None, None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        answer = run.uncond() if cfgpp else denoised
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        nominal_down, _ = ancestral_step(run.scalar(i), run.scalar(i + 1), eta)
        h, nominal_h = (sigma / sigma_down).log(), (run.scalar(i) / nominal_down).log()
        if nominal_down == 0 or old is None or h_last is None or nominal_h_last is None:
            x = denoised + to_d(x, sigma, answer) * sigma_down
        else:
            limit = max(LARGEST_RATIO, 1.01 * float(nominal_h / nominal_h_last))
            x = toward(x + denoised - answer, answer, sigma, sigma_down)
            x = x + phi_2(h) * extrapolation(h, h_last, limit) * (answer - old)
        if run.nominal(i + 1) > 0:
            x = x + run.randn_like(x) * s_noise * sigma_up
        old, h_last, nominal_h_last = answer, h, nominal_h
    return x


REGISTERED = (
    Row(Solver(sample_res_solver, "sigma"), labels=("RES Solver",), functions=("sample_res_solver",)),
    Row(Solver(sample_res_multistep, "sigma"), labels=("RES Multistep",), functions=("sample_res_multistep",)),
    Row(
        cfgpp_solver(partial(sample_res_multistep, cfgpp=True)),
        labels=("RES Multistep CFG++",),
        functions=("sample_res_multistep_cfg_pp",),
    ),
    Row(
        Solver(partial(sample_res_multistep, eta=1.0), "sigma", ANCESTRAL),
        labels=("RES Multistep Ancestral",),
        functions=("sample_res_multistep_ancestral",),
    ),
    Row(
        cfgpp_solver(partial(sample_res_multistep, eta=1.0, cfgpp=True), *ANCESTRAL),
        labels=("RES Multistep Ancestral CFG++",),
        functions=("sample_res_multistep_ancestral_cfg_pp",),
    ),
)
