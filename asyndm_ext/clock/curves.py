"""Concave schedulers (paper, section 4; Proposition 1): how high a pixel is after a step.

A pixel's state is its *remaining height* ``v`` in [0, 1]: 1 at the start of sampling, 0 at the end. The
global progress is counted by what remains of it, ``r`` (1 at the start, 0 at the end). On the host's own
schedule every pixel has ``v == r``; a pixel that lags behind has ``v > r``.

A concave scheduler is a curve ``f(u)`` with ``f(0) = 1`` and ``f(1) = 0``. From any reachable state
exactly one shifted copy of ``f`` passes through ``(1 - r, v)`` and ``(1, 0)`` (Proposition 1), and the
height after a further share ``h`` of progress has the closed form that the functions below compute. They
never divide by the strength, so strength 0 is the straight line and not 0/0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CURVES = ("quadratic", "piecewise linear", "exponential", "head start", "linear")

_WAIT = 0.25
"""Part of the steps that "head start" waits at strength 1; it catches up from the middle on."""


def _linear(v: Tensor, r: float, h: float) -> Tensor:
    return v * (1.0 - h / r)


def _quadratic(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return _linear(v, r, h) + w * h * (r - h)


def _piecewise_linear(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return torch.minimum(v - (1 - w) * h, (1 + w) * (r - h))


def _exponential(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    return v - (1 - w) * h - (v - (1 - w) * r) * (math.expm1(h) / math.expm1(r))


def _head_start(v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    # It waits, goes at the host's own stride, and catches up on the line that leads to (1, 0). The copy through (u, v)
    # is known by the lag that it has between its corners.
    most = torch.maximum(v - r, (v - (1 - w) * r - w * _WAIT) / 3).clamp_min(0.0)
    left = r - h
    return torch.minimum(torch.minimum(v - (1 - w) * h, left + most), (1 + 2 * _WAIT * w) * left)


_STEPS: dict[str, Callable[[Tensor, float, float, Tensor], Tensor]] = {
    "quadratic": _quadratic,
    "piecewise linear": _piecewise_linear,
    "exponential": _exponential,
    "head start": _head_start,
    "linear": lambda v, r, h, w: _linear(v, r, h),
}


def next_height(curve: str, v: Tensor, r: float, h: float, w: Tensor) -> Tensor:
    """Remaining height after one step (closed form of Proposition 1).

    Args:
        curve: one of :data:`CURVES`.
        v: remaining height per pixel, any shape, fraction in [0, 1].
        r: what remains of the global progress before the step, fraction in (0, 1].
        h: share of the global progress that the step takes, ``0 < h <= r``.
        w: strength per pixel in [0, 1], broadcastable to ``v``. A pixel of strength 0 takes the straight
           line to the end from where it is, whatever the curve, as in the authors' code.

    Returns:
        Tensor like ``v``; never above ``v``, never below 0, and exactly 0 when ``h == r``.

    Two strengths on the piecewise linear curve: a pixel that moves from a strong to a weak region may be
    above the weak region's curve, where no shifted copy exists. The authors' rule, kept here, cuts it
    down to that curve in a single step (up to 178 of 1000 timesteps from 0.7 to 0.4). "head start", which is not the
    authors' (tests/lag_rules.py chose it), does the same.

    Raises:
        ValueError: unknown curve.
    """
    if curve not in _STEPS:
        raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")
    if h >= r:
        return torch.zeros_like(v)
    concave = _STEPS[curve](v, r, h, w)
    new = torch.where(w == 0, _linear(v, r, h), concave)
    return torch.minimum(new, v).clamp_min(0.0)


def curve_height(curve: str, u: Tensor, w: float) -> Tensor:
    """The unshifted curve ``f(u)`` at strength ``w``: the height of a pixel that has been slow throughout.

    Args:
        u: global progress, fraction in [0, 1], any shape.
        w: strength in [0, 1].
    """
    straight = 1 - u
    if curve == "linear" or w == 0:
        return straight
    if curve == "quadratic":
        return (1 - w) * straight + w * (1 - u * u)
    if curve == "piecewise linear":
        return torch.minimum(1 - (1 - w) * u, (1 + w) * straight)
    if curve == "exponential":
        return (1 - w) * straight + w * (math.e - torch.exp(u)) / (math.e - 1)
    if curve == "head start":
        corners = torch.minimum(1 - (1 - w) * u, straight + w * _WAIT)
        return torch.minimum(corners, (1 + 2 * _WAIT * w) * straight)
    raise ValueError(f"unknown curve {curve!r}; choose one of: {', '.join(CURVES)}")
