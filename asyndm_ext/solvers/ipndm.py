"""iPNDM: Adams-Bashforth methods by fixed weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import look, to_d
from asyndm_ext.solvers.multistep import in_sigma, usable_terms
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver, named

_EVEN_STEPS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@torch.no_grad()
def sample_ipndm(run: Run, x: Tensor, max_order: int = 4, denoise_last: bool = False) -> Tensor:
    """iPNDM (Zhang & Chen 2022): the Adams-Bashforth weights of even steps, whatever the steps are.

    Args:
        denoise_last: the step to sigma 0 takes the denoised picture, as in ComfyUI.
    """
    ds: list[Tensor] = []
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        ds = [to_d(x, sigma, denoised), *ds][:max_order]
        weights = _EVEN_STEPS[len(ds) - 1]
        slope = torch.stack([weight * d for weight, d in zip(weights, ds, strict=True)]).sum(dim=0)
        x = x + (sigma_next - sigma) * slope
        if denoise_last and run.nominal(i + 1) == 0:
            x = denoised
    return x


@torch.no_grad()
def sample_ipndm_v(run: Run, x: Tensor, max_order: int = 4, denoise_last: bool = False) -> Tensor:
    """iPNDM with weights for uneven steps, the host's. ``denoise_last`` as for :func:`sample_ipndm`."""
    ds: list[Tensor] = []
    at: list[Tensor] = []
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        ds, at = [to_d(x, sigma, denoised), *ds][:max_order], [sigma, *at][:max_order]
        h = [after - before for after, before in pairwise([sigma_next, *at])]
        differences = [a - b for a, b in pairwise(ds)]
        slope = ds[0]
        for term, usable in zip(
            ipndm_v_terms(h, differences), usable_terms(run, i, at, sigma_next, in_sigma), strict=True
        ):
            slope = slope + torch.where(usable, term, 0.0)
        if len(ds) == 4:
            # The host's last weight has h1/h2 in the place of h2/h3, so that its weights do not add up to 1. A pixel
            # gets what the nominal steps make of that; its own steps are less even and would be thrown off.
            h = [run.scalar(i + 1 - k) - run.scalar(i - k) for k in range(4)]
            surplus = float(_ipndm_v_bend(h) * (h[2] / h[3] - h[1] / h[2]))
            # Not finite where the host's schedule repeats a sigma.
            slope = slope + (surplus if math.isfinite(surplus) else 0.0) * ds[3]
        x = x + (sigma_next - sigma) * slope
        if denoise_last and run.nominal(i + 1) == 0:
            x = denoised
    return x


def ipndm_v_terms(h: Sequence[Tensor], differences: Sequence[Tensor]) -> Iterator[Tensor]:
    """What the second, third and fourth order add to the slope, by differences of the slopes (newest first)."""
    if len(differences) > 0:
        yield h[0] / h[1] / 2 * differences[0]
    if len(differences) > 1:
        share = h[0] / (3 * (h[0] + h[1])) * (h[0] * (h[0] + h[1])) / (h[1] * (h[1] + h[2]))
        bend = differences[0] - h[1] / h[2] * differences[1]
        yield (1 - share) / 2 * bend
    if len(differences) > 2:
        twist = h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3])) * (differences[1] - h[2] / h[3] * differences[2])
        yield _ipndm_v_last(h) * (bend - twist)


def _ipndm_v_last(h: Sequence[Tensor]) -> Tensor:
    two, three = h[0] + h[1], h[0] + h[1] + h[2]
    weight = (1 - h[0] / (3 * two)) / 2 + (1 - h[0] / (2 * two)) * h[0] / (6 * three)
    return weight * (h[0] * two * three) / (h[1] * (h[1] + h[2]) * (h[1] + h[2] + h[3]))


def _ipndm_v_bend(h: Sequence[Tensor]) -> Tensor:
    return _ipndm_v_last(h) * h[1] * (h[1] + h[2]) / (h[2] * (h[2] + h[3]))


_IPNDM = Solver(sample_ipndm, "sigma", ("max_order",), stand_ins=named("ipndm", "max_order"))
_IPNDM_V = Solver(sample_ipndm_v, "sigma", ("max_order",), stand_ins=named("ipndm_v", "max_order"))

REGISTERED = (
    Row(_IPNDM, labels=("IPNDM",), functions=("sample_ipndm",)),
    Row(replace(_IPNDM, sample=partial(sample_ipndm, denoise_last=True)), comfy=("sample_ipndm",)),
    Row(_IPNDM_V, labels=("IPNDM_V",), functions=("sample_ipndm_v",)),
    Row(replace(_IPNDM_V, sample=partial(sample_ipndm_v, denoise_last=True)), comfy=("sample_ipndm_v",)),
)
