"""The stochastic DPM-Solver++ family.

The host's Brownian tree is asked about nominal intervals. What it answers has unit variance and is independent
for intervals that do not overlap; each pixel scales it by the standard deviation of its own interval.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.half_log_snr import in_half_log_snr, snr_schedule
from asyndm_ext.solvers.helpers import (
    LARGEST_RATIO_BEND,
    ancestral_step,
    extrapolation,
    largest_ratio,
    look,
    part_way,
    phi_2,
    phi_3,
    toward,
)
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, Solver, cfgpp_solver, named


@torch.no_grad()
def sample_dpmpp_sde(
    run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5, by_log: bool = True
) -> Tensor:
    """DPM-Solver++ (stochastic): a part ``r`` of the step in log-sigma with its noise, then all of it with its own.

    Args:
        by_log: ask the Brownian tree about ends that went through the logarithm, as k-diffusion does; it answers to
            the last bit of its interval's ends.
    """
    share = 1 / (2 * r)
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = toward(x, denoised, sigma, sigma_next)
            continue
        nominal, nominal_mid, nominal_next = tree_ends(run, i, r, by_log)
        sigma_mid = run.maps.between(partial(part_way, share=r), sigma, sigma_next)

        sigma_down, sigma_up = ancestral_step(sigma, sigma_mid, eta)
        x_2 = toward(x, denoised, sigma, sigma_down)
        x_2 = x_2 + run.noise_sampler(nominal, nominal_mid) * s_noise * sigma_up
        denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)

        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = toward(x, (1 - share) * denoised + share * denoised_2, sigma, sigma_down)
        x = x + run.noise_sampler(nominal, nominal_next) * s_noise * sigma_up
    return x


def tree_ends(run: Run, i: int, r: float, by_log: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The nominal sigmas at the start, at a part ``r`` and at the end of a step, as the host asks its tree."""
    nominal, nominal_next = run.scalar(i), run.scalar(i + 1)
    middle = run.middle(nominal, nominal_next, r)
    return (nominal.log().exp(), middle, nominal_next.log().exp()) if by_log else (nominal, middle, nominal_next)


@torch.no_grad()
def sample_dpmpp_2m_sde(
    run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, solver_type: str = "midpoint", cfgpp: bool = False
) -> Tensor:
    """DPM-Solver++(2M) SDE; every pixel has its own step sizes h and h_last in log-sigma.

    Args:
        cfgpp: carry the latent on from the unguided answer (CFG++).

    Raises:
        ValueError: a solver_type other than midpoint and heun.
    """
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type must be midpoint or heun, not {solver_type!r}")
    old_denoised, h_last = None, None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        h = sigma.log() - sigma_next.log()
        h_eta = h * (eta + 1)
        if cfgpp:
            x = x + denoised - run.uncond()
        x = torch.exp(-h_eta) * x - torch.expm1(-h_eta) * denoised
        if old_denoised is not None and h_last is not None:
            weight = phi_2(h_eta) if solver_type == "heun" else -torch.expm1(-h_eta) / 2
            slope = extrapolation(h, h_last, largest_ratio(run, i, 1))
            x = x + weight * slope * (denoised - old_denoised)
        if eta:
            x = x + run.noise_sampler(run.scalar(i), run.scalar(i + 1)) * sigma_next * own_share(h, eta) * s_noise
        old_denoised, h_last = denoised, h
    return x


@torch.no_grad()
def sample_dpmpp_3m_sde(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, cfgpp: bool = False) -> Tensor:
    """DPM-Solver++(3M) SDE; a pixel with one usable step behind it goes second order, with none first order.

    Args:
        cfgpp: carry the latent on from the unguided answer (CFG++).
    """
    denoised_1, denoised_2, h_1, h_2 = None, None, None, None
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        h = sigma.log() - sigma_next.log()
        h_eta = h * (eta + 1)
        if cfgpp:
            x = x + denoised - run.uncond()
        x = torch.exp(-h_eta) * x - torch.expm1(-h_eta) * denoised
        if denoised_1 is not None and h_1 is not None:
            d1 = d1_0 = (denoised - denoised_1) * extrapolation(h, h_1, largest_ratio(run, i, 1))
            if denoised_2 is not None and h_2 is not None:
                near, far = (largest_ratio(run, i, back, LARGEST_RATIO_BEND) for back in (1, 2))
                ratio_2 = torch.where(h < near * h_1, extrapolation(h, h_2, far), 0.0)
                d1_1 = (denoised_1 - denoised_2) * ratio_2
                # The bend, with h_1 / h = r0 and (h_1 + h_2) / h = r0 + r1.
                d2 = torch.where(ratio_2 > 0, (d1_0 - d1_1) * h / (h_1 + h_2), 0.0)
                d1 = d1_0 + torch.where(ratio_2 > 0, d2 * h_1 / h, 0.0)
                x = x - phi_3(h_eta) * d2
            x = x + phi_2(h_eta) * d1
        if eta:
            x = x + run.noise_sampler(run.scalar(i), run.scalar(i + 1)) * sigma_next * own_share(h, eta) * s_noise
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    return x


def own_share(h: Tensor, eta: float) -> Tensor:
    """Standard deviation of the fresh noise in a step of h in log-sigma, in units of the sigma it ends at."""
    return (-torch.expm1(-2 * eta * h)).clamp_min(0).sqrt()


_SDE = Solver(
    sample_dpmpp_sde, "sigma", (*ANCESTRAL, "r"), brownian=True, stand_ins=named("dpmpp_sde_og", *ANCESTRAL, "r")
)
_2M_SDE = Solver(
    sample_dpmpp_2m_sde,
    "sigma",
    (*ANCESTRAL, "solver_type"),
    brownian=True,
    stand_ins=named("dpmpp_2m_sde_og", *ANCESTRAL, "solver_type"),
)
_3M_SDE = Solver(sample_dpmpp_3m_sde, "sigma", ANCESTRAL, brownian=True, stand_ins=named("dpmpp_3m_sde_og", *ANCESTRAL))

REGISTERED = (
    Row(
        _SDE,
        labels=("DPM++ SDE", "DPM++ SDE Classic", "DPM++ SDE Comfy"),
        functions=("sample_dpmpp_sde", "sample_dpmpp_sde_classic"),
    ),
    Row(
        _2M_SDE,
        labels=("DPM++ 2M SDE", "DPM++ 2M SDE Turbo", "DPM++ 2M SDE Comfy"),
        functions=("sample_dpmpp_2m_sde",),
    ),
    Row(
        Solver(partial(sample_dpmpp_2m_sde, solver_type="heun"), "sigma", ANCESTRAL, brownian=True),
        labels=("DPM++ 2M SDE Heun",),
    ),
    Row(_3M_SDE, labels=("DPM++ 3M SDE", "DPM++ 3M SDE Comfy"), functions=("sample_dpmpp_3m_sde",)),
    # CFG++
    Row(
        cfgpp_solver(
            partial(sample_dpmpp_2m_sde, cfgpp=True),
            *(*ANCESTRAL, "solver_type"),
            prefix="dpmpp_2m_sde_cfg_pp",
            brownian=True,
        ),
        labels=("DPM++ 2M SDE CFG++",),
        functions=("sample_dpmpp_2m_sde_cfg_pp",),
    ),
    Row(
        cfgpp_solver(partial(sample_dpmpp_3m_sde, cfgpp=True), *ANCESTRAL, prefix="dpmpp_3m_sde_cfg_pp", brownian=True),
        labels=("DPM++ 3M SDE CFG++",),
        functions=("sample_dpmpp_3m_sde_cfg_pp",),
    ),
    # In half-log-SNR.
    Row(
        replace(_SDE, sample=in_half_log_snr(partial(sample_dpmpp_sde, by_log=False)), own_schedule=snr_schedule),
        snr=("sample_dpmpp_sde",),
    ),
    # The solver type is the setting's there, whatever the label says.
    Row(
        replace(_2M_SDE, sample=in_half_log_snr(sample_dpmpp_2m_sde), own_schedule=snr_schedule),
        snr=("sample_dpmpp_2m_sde",),
    ),
    Row(
        replace(_3M_SDE, sample=in_half_log_snr(sample_dpmpp_3m_sde), own_schedule=snr_schedule),
        snr=("sample_dpmpp_3m_sde",),
    ),
)
