"""Linear multistep coefficients for steps that differ from pixel to pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The most by which a multistep formula may magnify its model answers (sum of its absolute coefficients). A pixel
# that hardly moved in its last steps has differences that are mostly what changed around it; divided by so short a
# step they would be magnified. Adams-Bashforth of fourth order, for equal steps, magnifies 6.7-fold.
LARGEST_GAIN = 10.0


def lagrange_means(nodes: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """Mean over ``nodes[0]..end`` of the polynomials that are 1 at one of the nodes and 0 at the others."""
    position = [(node - nodes[0]) / (end - nodes[0]) for node in nodes]
    means = []
    for j, own in enumerate(position):
        polynomial = [torch.ones_like(own)]  # coefficients, constant first
        for other in position[:j] + position[j + 1 :]:
            shifted = [torch.zeros_like(own), *polynomial]
            scaled = [*(-other * c for c in polynomial), torch.zeros_like(own)]
            polynomial = [(a + b) / (own - other) for a, b in zip(shifted, scaled, strict=True)]
        means.append(torch.stack([c / (power + 1) for power, c in enumerate(polynomial)]).sum(dim=0))
    return means


def adams_bashforth(nodes: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """Coefficients of the values at ``nodes`` (newest first) for the mean of their polynomial up to ``end``.

    Each pixel has the highest order that its own steps bear (:data:`LARGEST_GAIN`); one that stood still, or
    stands still now, the first.
    """
    chosen = [torch.ones_like(end), *(torch.zeros_like(end) for _ in nodes[1:])]
    for order in range(2, len(nodes) + 1):
        means = lagrange_means(nodes[:order], end)
        borne = torch.stack(means).abs().sum(dim=0) <= LARGEST_GAIN  # false for the infinite and for NaN
        padded = [*means, *(torch.zeros_like(end) for _ in nodes[order:])]
        chosen = [torch.where(borne, new, old) for new, old in zip(padded, chosen, strict=True)]
    return chosen
