"""DDIM, in the model's own variance-preserving space."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run


@torch.no_grad()
def sample_ddim(run: Run, x: Tensor, eta: float = 0.0) -> Tensor:
    """Song et al. (2020), Eq. 12 and 16, per pixel; a pixel whose timestep stays is left exactly as it is."""
    for i in run.steps():
        alpha = run.alpha(run.level)
        eps = run.model(x)
        alpha_next = run.alpha(run.advance())
        x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        sigma = eta * variance.clamp_min(0).sqrt()
        direction = (1 - alpha_next - sigma**2).clamp_min(0).sqrt()
        # Drawn also for eta 0, as the WebUI does, so that seeds match.
        x = alpha_next.sqrt() * x0 + direction * eps + sigma * run.randn_like(x)
        run.report(i, x, x0)
    return x
