"""The functions of exponential integrators, also for steps of no length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SERIES_WITHIN = 1.0
_TERMS = 18


def phis(z: Tensor, count: int) -> list[Tensor]:
    """``phi_0 = exp(z)``, ``phi_k = (phi_(k-1) - 1/(k-1)!) / z``, elementwise, up to ``phi_count``; ``1/k!`` at 0.

    Upwards the recursion loses its digits near 0 (all of them for k = 3 at 1e-6). There the last one is taken from
    its series, and the others downwards.
    """
    small = z.abs() < _SERIES_WITHIN
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    downwards = [torch.zeros_like(z)]
    for j in reversed(range(_TERMS)):
        downwards[0] = downwards[0] * near + 1 / math.factorial(j + count)
    upwards = [far.exp()]
    for k in range(count):
        downwards.insert(0, downwards[0] * near + 1 / math.factorial(count - 1 - k))
        upwards.append((upwards[-1] - 1 / math.factorial(k)) / far)
    return [torch.where(small, down, up) for down, up in zip(downwards, upwards, strict=True)]
