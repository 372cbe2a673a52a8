"""ER-SDE-Solver-3 (Cui et al. 2023): extended reverse-time SDEs."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.half_log_snr import in_snr
from asyndm_ext.solvers.helpers import LARGEST_RATIO, LARGEST_RATIO_BEND, largest_ratio
from asyndm_ext.solvers.multistep import in_sigma
from asyndm_ext.solvers.registry import Row

_POINTS = 200


def noise_scale(sigma: Tensor) -> Tensor:
    """How the reverse SDE's noise falls with sigma; the authors' choice."""
    return sigma * ((sigma**0.3).exp() + 10)


def scale_integrals(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Sums for the integrals of ``1/noise_scale`` and of ``(sigma - start)/noise_scale`` from end to start.

    The host's 200 points, not the integrals: with few steps the two differ. Summed once for each distinct step.
    """
    distinct, where = torch.stack([start.flatten(), end.flatten()], dim=1).unique(dim=0, return_inverse=True)
    high, low = distinct.unbind(dim=1)
    width = (high - low) / _POINTS
    points = low[:, None] + width[:, None] * torch.arange(_POINTS, dtype=low.dtype)
    weights = width[:, None] / noise_scale(points)
    first, second = weights.sum(dim=1), (weights * (points - high[:, None])).sum(dim=1)
    return first[where].view_as(start), second[where].view_as(start)


def usable(run: Run, i: int, step: Tensor, backs: list[Tensor], limit: float) -> Tensor:
    """Where a step is not so much longer than those before that a slope from there would be magnified, bool."""
    found = torch.ones_like(step, dtype=torch.bool)
    for back, before in enumerate(backs, start=1):
        found = found & (step < largest_ratio(run, i, back, limit, in_sigma) * before)
    return found


@torch.no_grad()
def sample_er_sde(run: Run, x: Tensor, s_noise: float = 1.0, max_stage: int = 3) -> Tensor:
    """Each pixel has its own steps in sigma; a stage is left out where its last steps were too short for a slope."""
    at: list[Tensor] = []  # sigma maps in float64, newest first
    last, slope = None, None
    for i in run.steps():
        at = [run.exact, *at][:3]
        denoised = run.model(x)
        run.report(i, x, denoised)
        run.move()
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        start, end = at[0], run.exact
        scale = noise_scale(end)
        ratio = scale / noise_scale(start)
        added = (end**2 - start**2 * ratio**2).clamp_min(0).sqrt()
        maps = [ratio, 1 - ratio, added]
        if last is not None and max_stage > 1:
            step, steps = start - end, [at[j + 1] - at[j] for j in range(len(at) - 1)]
            first, second = scale_integrals(start, end)
            weight = torch.where(usable(run, i, step, steps[:1], LARGEST_RATIO), first * scale - step, 0.0)
            maps += [steps[0], torch.where(steps[0] > 0, steps[0], 1.0), weight]
            if slope is not None and max_stage > 2:
                both = steps[0] + steps[1]
                known = usable(run, i, step, steps, LARGEST_RATIO_BEND)
                bend = (step**2 / 2 + second * scale) * 2 / torch.where(both > 0, both, 1.0)
                maps += [torch.where(known, bend, 0.0)]
        kept, fresh, added, *slopes = run.maps.all_on_device(*maps)
        x = kept * x + fresh * denoised
        if last is not None and slopes:
            new_slope = torch.where(slopes[0] > 0, (last - denoised) / slopes[1], 0.0)
            x = x + slopes[2] * new_slope
            if slope is not None and len(slopes) > 3:
                x = x - slopes[3] * (new_slope - slope)
            slope = new_slope
        if s_noise > 0:
            x = x + added * s_noise * run.randn_like(x)
        last = denoised
    return x


REGISTERED = (Row(in_snr(sample_er_sde, "s_noise", "max_stage"), labels=("ER SDE",), functions=("sample_er_sde",)),)
