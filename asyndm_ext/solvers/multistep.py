"""Adams-Bashforth methods in sigma: the slopes of the last steps, extrapolated over the next one.

A pixel's history stands at its own, unevenly spaced levels. Interpolation is done in Newton's form: its terms can
be left out one by one where a pixel's last steps were too short to tell a slope (see LARGEST_RATIO).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import LARGEST_RATIO, to_d


def newton_terms(values: Sequence[Tensor], at: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """Divided differences of ``values`` at the levels ``at`` (newest first), for a step from ``at[0]`` to ``end``."""
    terms, column = [values[0]], list(values)
    usable = torch.ones_like(end, dtype=torch.bool)
    for k in range(1, len(values)):
        column = [(a - b) / (at[j] - at[j + k]) for j, (a, b) in enumerate(pairwise(column))]
        usable = usable & ((end - at[0]).abs() < LARGEST_RATIO * (at[k - 1] - at[k]).abs())
        terms.append(torch.where(usable, column[0], 0.0))
    return terms


def integrate(
    terms: Sequence[Tensor], at: Sequence[Tensor], nodes: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Integral of Newton's polynomial by quadrature: ``nodes`` in the variable of ``at``, with ``weights``."""
    total, basis = torch.zeros_like(terms[0]), [torch.ones_like(node) for node in nodes]
    for k, term in enumerate(terms):
        moment = torch.stack([weight * value for weight, value in zip(weights, basis, strict=True)]).sum(dim=0)
        total = total + moment * term
        basis = [value * (node - at[k]) for value, node in zip(basis, nodes, strict=True)]
    return total


@torch.no_grad()
def sample_lms(run: Run, x: Tensor, order: int = 4) -> Tensor:
    """Linear multistep: the polynomial in sigma through the last ``order`` <= 4 slopes, integrated exactly."""
    ds: list[Tensor] = []
    at: list[Tensor] = []
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        ds, at = [to_d(x, sigma, denoised), *ds][:order], [sigma, *at][:order]
        # Two Gauss points integrate cubics without error.
        half = (sigma_next - sigma) / 2
        nodes = [sigma + half * (1 - 3**-0.5), sigma + half * (1 + 3**-0.5)]
        x = x + integrate(newton_terms(ds, at, sigma_next), at, nodes, [half, half])
    return x
