"""Shapes and limits shared by the solvers; all elementwise on maps ``(B,1,H,W)``."""

from __future__ import annotations

import torch
from torch import Tensor


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Karras ODE derivative ``(x - denoised) / sigma``."""
    return (x - denoised) / sigma


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """``(sigma_down, sigma_up)`` of each pixel's own interval, as k-diffusion's ``get_ancestral_step``."""
    variance = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).clamp_min(0)
    sigma_up = torch.minimum(sigma_next, eta * variance.sqrt())
    return (sigma_next**2 - sigma_up**2).clamp_min(0).sqrt(), sigma_up
