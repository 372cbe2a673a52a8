"""SEEDS (Gonzalez et al. 2023): exponential Runge-Kutta steps of the SDE, with the noise of each part of the step."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.half_log_snr import in_snr
from asyndm_ext.solvers.helpers import inside_step, look, midway, part_way, phi_2
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL


def part_noise(h: Tensor, eta: float, parts: int, back: int) -> Tensor:
    """Standard deviation of the noise that one of the equal parts of a step adds, ``back`` parts later, per sigma."""
    part = h * eta / parts
    return torch.exp(-back * part) * (-torch.expm1(-2 * part)).clamp_min(0).sqrt()


@torch.no_grad()
def sample_seeds_2(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """SEEDS-2: a look halfway, whose answer carries the whole step."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        noisy = eta > 0 and s_noise > 0
        noises = [run.randn_like(x) * s_noise for _ in range(2 * noisy)]
        h = sigma.log() - sigma_next.log()
        z = h * (eta + 1)
        sigma_mid, nominal_mid = inside_step(run, i, sigma, sigma_next, midway)

        x_2 = torch.exp(-z / 2) * x - torch.expm1(-z / 2) * denoised
        if noisy:
            x_2 = x_2 + sigma_mid * part_noise(h, eta, 2, 0) * noises[0]
        denoised_2 = run.model_at(x_2, nominal_mid, sigma_mid)

        x = torch.exp(-z) * x - torch.expm1(-z) * denoised_2
        for back, noise in enumerate(reversed(noises)):
            x = x + sigma_next * part_noise(h, eta, 2, back) * noise
    return x


@torch.no_grad()
def sample_seeds_3(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """SEEDS-3: looks at a third and at two thirds of the step."""
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        noisy = eta > 0 and s_noise > 0
        noises = [run.randn_like(x) * s_noise for _ in range(3 * noisy)]
        h = sigma.log() - sigma_next.log()
        z = h * (eta + 1)

        ways = run.maps.between(lambda a, b: tuple(part_way(a, b, part / 3) for part in (1, 2, 3)), sigma, sigma_next)
        y, answers = x, [denoised]
        for part, at in enumerate(ways, start=1):
            share = part / 3
            y = torch.exp(-share * z) * x - torch.expm1(-share * z) * denoised
            if part > 1:
                before = (part - 1) / 3  # where the last look was
                y = y + share / before * phi_2(share * z) * (answers[-1] - denoised)
            for back, noise in enumerate(reversed(noises[:part])):
                y = y + at * part_noise(h, eta, 3, back) * noise
            if part < 3:
                answers.append(run.model_at(y, part_way(run.scalar(i), run.scalar(i + 1), share), at))
        x = y
    return x


REGISTERED = (
    Row(in_snr(sample_seeds_2, *ANCESTRAL), labels=("SEEDS 2 DP",), functions=("sample_seeds_2",)),
    Row(in_snr(sample_seeds_3, *ANCESTRAL), labels=("SEEDS 3 DP",), functions=("sample_seeds_3",)),
)
