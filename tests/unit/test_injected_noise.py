"""What stochastic solvers add: each pixel the variance of its own interval, no pixel its neighbour's noise."""

from __future__ import annotations

import pytest
import torch
from support.solvers import CHURN, sigma_schedule
from torch import Tensor

from asyndm_ext.regions import FixedRegion
from asyndm_ext.run import Run
from asyndm_ext.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.solvers import SOLVERS

SAMPLES = 20_000
STRENGTHS = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0], dtype=torch.float64).view(1, 1, 2, 4)


class Nothing:
    """The clean picture is empty, so the latent is its noise and its variance is known at every level."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def attention(self) -> None:
        return None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Euler a", {}),
        ("Euler a", {"eta": 0.5}),
        ("DPM2 a", {}),
        ("DPM++ 2S a", {}),
        ("DPM++ SDE", {}),
        ("DPM++ 2M SDE", {}),
        ("DPM++ 2M SDE Heun", {"eta": 0.5}),
        ("DPM++ 3M SDE", {}),
        ("LCM", {}),
        ("DDPM", {}),
        ("Euler", CHURN | {"s_noise": 1.0}),
    ],
)
@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
def test_variance_and_independence(name: str, options: dict, curve: str) -> None:
    """Ends above 0, at the step before the curves meet again, where the levels still differ."""
    generator = torch.Generator().manual_seed(21)
    sigmas = sigma_schedule("karras", 10)[:-1]
    schedule = PixelSchedule(BaseSchedule.from_sigmas(sigmas), (1, 1, 2, 4), curve)
    start = torch.randn(SAMPLES, 1, 2, 4, generator=generator, dtype=torch.float64) * sigmas[0]
    seen: list[tuple[Tensor, Tensor]] = []
    run = Run(
        Nothing(),
        schedule,
        FixedRegion(STRENGTHS),
        start,
        randn_like=lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype),
        callback=lambda step: seen.append((step["x"], run.level * float(step["sigma_hat"] / step["sigma"]))),
    )
    SOLVERS[name].sample(run, start, **options)
    for latent, level in seen[1:]:
        x = latent.flatten(1)
        assert x.std(dim=0) / level.flatten() == pytest.approx(torch.ones(8).tolist(), abs=0.03)
        correlation = torch.corrcoef(x.T) - torch.eye(8)
        assert correlation.abs().max() < 0.04
    assert seen[5][1].flatten().unique().numel() == 8, "every pixel at a level of its own"
