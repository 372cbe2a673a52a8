"""The DPM-Solver++ family."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run

# A pixel whose step is more than this many times its last one takes it first order: the slope over a tiny step is
# mostly what changed around the pixel, and would be magnified. The WebUI's own schedules stay below 5.
LARGEST_RATIO = 10.0


@torch.no_grad()
def sample_dpmpp_2m(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022); every pixel has its own step sizes h and h_last in log-sigma."""
    old_denoised, h_last = None, None
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        h = sigma.log() - sigma_next.log()
        if old_denoised is None or h_last is None or run.nominal(i + 1) == 0:
            denoised_d = denoised
        else:
            # 1/(2r) with r = h_last/h. A pixel that (nearly) stood still in the last step has no slope to extrapolate.
            tiny = torch.finfo(h.dtype).tiny
            slope = torch.where(h < LARGEST_RATIO * h_last, h / (2 * h_last.clamp_min(tiny)), 0.0)
            denoised_d = (1 + slope) * denoised - slope * old_denoised
        x = (sigma_next / sigma) * x - torch.expm1(-h) * denoised_d
        old_denoised, h_last = denoised, h
    return x
