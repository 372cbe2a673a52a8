"""The functions of exponential integrators, also for steps of no length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SERIES_WITHIN = 1.0
_TERMS = 20


def phi(k: int, z: Tensor) -> Tensor:
    """``phi_0 = exp(z)``, ``phi_k = (phi_(k-1) - 1/(k-1)!) / z``, elementwise; ``1/k!`` at 0.

    The recursion loses its digits near 0 (all of them for k = 3 at 1e-6), the series does not.
    """
    near = torch.where(z.abs() < _SERIES_WITHIN, z, 0.0)
    series = torch.zeros_like(z)
    for j in reversed(range(_TERMS)):
        series = series * near + 1 / math.factorial(j + k)
    far = torch.where(z.abs() < _SERIES_WITHIN, 1.0, z)
    recursion = far.exp()
    for j in range(k):
        recursion = (recursion - 1 / math.factorial(j)) / far
    return torch.where(z.abs() < _SERIES_WITHIN, series, recursion)
