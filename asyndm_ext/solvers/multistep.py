"""Adams-Bashforth methods by interpolation: the slopes of the last steps, extrapolated over the next one.

A pixel's history stands at its own, unevenly spaced levels. Interpolation is done in Newton's form: its terms are
left out one by one where a pixel's last steps were too short to tell a slope (see LARGEST_RATIO).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import LARGEST_RATIO, LARGEST_RATIO_BEND, largest_ratio, look, to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver, named

Axis = Callable[[Tensor], Tensor]
"""What steps are measured in, as a function of sigma."""

# Gauss-Legendre, 8 points on [-1, 1]: nodes and weights, the negative half left out.
_GAUSS = (
    (0.1834346424956498, 0.3626837833783620),
    (0.5255324099163290, 0.3137066458778873),
    (0.7966664774136267, 0.2223810344533745),
    (0.9602898564975363, 0.1012285362903763),
)


_HOST_POINTS = 10_000


def in_sigma(sigma: Tensor) -> Tensor:
    return sigma


def usable_terms(run: Run, i: int, at: Sequence[Tensor], end: Tensor, axis: Axis) -> Iterator[Tensor]:
    """For term 1, 2, ... of a step from ``at[0]`` (newest first) to ``end``: the pixels that can have it, bool."""
    usable = torch.ones_like(end, dtype=torch.bool)
    for k in range(1, len(at)):
        limit = LARGEST_RATIO if k == 1 else LARGEST_RATIO_BEND
        for back in range(1, k + 1):
            gap = (at[back - 1] - at[back]).abs()
            usable = usable & ((end - at[0]).abs() < largest_ratio(run, i, back, limit, axis) * gap)
        yield usable


def newton_terms(values: Sequence[Tensor], at: Sequence[Tensor], usable: Iterator[Tensor]) -> list[Tensor]:
    """Divided differences of ``values`` at the places ``at`` (newest first)."""
    terms, column = [values[0]], list(values)
    for k, mask in enumerate(usable, start=1):
        column = [(a - b) / (at[j] - at[j + k]) for j, (a, b) in enumerate(pairwise(column))]
        terms.append(torch.where(mask, column[0], 0.0))
    return terms


def integrate(
    terms: Sequence[Tensor], at: Sequence[Tensor], nodes: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Integral of Newton's polynomial by quadrature: ``nodes`` on the axis of ``at``, with ``weights``."""
    total, basis = torch.zeros_like(terms[0]), [torch.ones_like(node) for node in nodes]
    for k, term in enumerate(terms):
        moment = torch.stack([weight * value for weight, value in zip(weights, basis, strict=True)]).sum(dim=0)
        total = total + moment * term
        basis = [value * (node - at[k]) for value, node in zip(basis, nodes, strict=True)]
    return total


@torch.no_grad()
def sample_lms(run: Run, x: Tensor, order: int = 4, denoise_last: bool = False) -> Tensor:
    """Linear multistep: the polynomial in sigma through the last ``order`` <= 4 slopes, integrated exactly.

    With ``denoise_last`` the last step takes the model's answer instead.
    """
    ds: list[Tensor] = []
    at: list[Tensor] = []
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        if denoise_last and run.nominal(i + 1) == 0:
            x = denoised
            continue
        ds, at = [to_d(x, sigma, denoised), *ds][:order], [sigma, *at][:order]
        # Two Gauss points integrate cubics without error.
        half = (sigma_next - sigma) / 2
        nodes = [sigma + half * (1 - 3**-0.5), sigma + half * (1 + 3**-0.5)]
        terms = newton_terms(ds, at, usable_terms(run, i, at, sigma_next, in_sigma))
        x = x + integrate(terms, at, nodes, [half, half])
    return x


@torch.no_grad()
def sample_deis(run: Run, x: Tensor, max_order: int = 3) -> Tensor:
    """DEIS, tAB (Zhang & Chen 2022): as LMS, with the polynomial in the time of a VP diffusion.

    The host sums 10,000 points for each integral, both ends among them. Gauss' formula gives the integral, and what the
    sum makes of it is added: its ends count in full, and it is a step too short.
    """
    ds: list[Tensor] = []
    at: list[Tensor] = []
    for i in run.steps():
        sigma, denoised, sigma_next = look(run, i, x)
        ds, at = [to_d(x, sigma, denoised), *ds][:max_order], [vp_time(sigma), *at][:max_order]
        if i == 0 or run.nominal(i + 1) == 0:
            x = x + ds[0] * (sigma_next - sigma)
            continue
        # Nodes even in log-sigma: there the integrand is smooth over wide steps too.
        half = (sigma_next / sigma).log() / 2
        points = [((half * (1 + side * node)).exp() * sigma, weight) for node, weight in _GAUSS for side in (-1, 1)]
        start, end = vp_time(sigma), vp_time(sigma_next)
        nodes = [*(vp_time(point) for point, _ in points), start, end]
        weights = [half * weight * point * (1 - 1 / _HOST_POINTS) for point, weight in points]
        weights += [(end - start) / (2 * _HOST_POINTS) * vp_rate(level) for level in (sigma, sigma_next)]
        terms = newton_terms(ds, at, usable_terms(run, i, at, end, vp_time))
        x = x + integrate(terms, at, nodes, weights)
    return x


def _vp_betas() -> tuple[float, float]:
    # The host's float32, in which the lower end of the range, 0.002**2 + 1, keeps two digits.
    low, high = ((torch.tensor(sigma, dtype=torch.float32) ** 2 + 1).log() for sigma in (0.002, 80.0))
    beta_d = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    return float(beta_d), float(high - 0.5 * beta_d)


_BETA_D, _BETA_MIN = _vp_betas()


def vp_time(sigma: Tensor) -> Tensor:
    """Time of a VP diffusion with linear beta at which the noise level is sigma (Karras et al. 2022, Table 1)."""
    return ((_BETA_MIN**2 + 2 * _BETA_D * (sigma**2 + 1).log()).sqrt() - _BETA_MIN) / _BETA_D


def vp_rate(sigma: Tensor) -> Tensor:
    """Rise of sigma with :func:`vp_time`."""
    return (sigma**2 + 1) * (_BETA_MIN**2 + 2 * _BETA_D * (sigma**2 + 1).log()).sqrt() / (2 * sigma)


_LMS = Solver(sample_lms, "sigma")

REGISTERED = (
    Row(_LMS, labels=("LMS",), functions=("sample_lms",)),
    Row(replace(_LMS, sample=partial(sample_lms, denoise_last=True)), denoise_last=("sample_lms",)),
    Row(
        Solver(sample_deis, "sigma", ("max_order",), stand_ins=named("deis", "max_order")),
        labels=("DEIS",),
        functions=("sample_deis",),
    ),
)
