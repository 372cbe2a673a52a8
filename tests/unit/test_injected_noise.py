"""What stochastic solvers add: each pixel the variance of its own interval, no pixel its neighbour's noise."""

from __future__ import annotations

import pytest
import torch
from support.solvers import CHURN, percent_to_sigma, run_solver, schedule_for, sigma_schedule
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import FLOW, SNR, SOLVERS, Solver

SAMPLES = 20_000
STRENGTHS = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0], dtype=torch.float64).view(1, 1, 2, 4)


class Nothing:
    """The clean picture is empty, so the latent is its noise and its variance is known at every level."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @property
    def last_uncond(self) -> Tensor:
        return torch.zeros(())

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
        FromHost(
            randn_like=lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype),
            callback=lambda step: seen.append((step["x"], run.level * float(step["sigma_hat"] / step["sigma"]))),
        ),
    )
    SOLVERS[name].sample(run, start, **options)
    for latent, level in seen[1:]:
        x = latent.flatten(1)
        assert x.std(dim=0) / level.flatten() == pytest.approx(torch.ones(8).tolist(), abs=0.03)
        correlation = torch.corrcoef(x.T) - torch.eye(8)
        assert correlation.abs().max() < 0.04
    assert seen[5][1].flatten().unique().numel() == 8, "every pixel at a level of its own"


NEW = [
    *(SOLVERS[name] for name in ("Euler Ancestral CFG++", "DPM++ 2S Ancestral CFG++", "DPM++ SDE CFG++")),
    *(SOLVERS[name] for name in ("DPM++ 3M SDE CFG++", "RES Multistep Ancestral", "RES Multistep Ancestral CFG++")),
    *(SOLVERS[name] for name in ("ER SDE", "SEEDS 2 DP", "SEEDS 3 DP")),
]
ON_FLOW = [SOLVERS["Euler A Comfy RF"], SOLVERS["DPM++ 2S Ancestral Comfy RF"], *FLOW.values(), *SNR.values()]
IN_SNR = [SOLVERS[name] for name in ("Euler Ancestral CFG++", "ER SDE", "SEEDS 2 DP", "SEEDS 3 DP")]


@pytest.mark.parametrize(
    ("solver", "kind"), [*((s, "eps") for s in NEW), *((s, "flow") for s in [*ON_FLOW, *IN_SNR, SOLVERS["Euler A2"]])]
)
def test_the_noise_is_each_pixels_level(solver: Solver, kind: str) -> None:
    """A latent without a picture is noise of standard deviation sigma, on a flow as well."""
    generator = torch.Generator().manual_seed(22)
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", 10)[:-1]
    start = torch.randn(SAMPLES, 1, 2, 4, generator=generator, dtype=torch.float64) * sigmas[0]
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(Nothing):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.append((x, level[:1]))
            return super().__call__(x, nominal, level)

    def normals(*_: Tensor) -> Tensor:
        return torch.randn(start.shape, generator=generator, dtype=torch.float64)

    noises = {"randn_like": normals, "noise_sampler": normals}
    options = {"extrapolation": 2**0.5 - 1} if solver is SOLVERS["Euler A2"] else {}
    region = FixedRegion(STRENGTHS)
    run_solver(solver, kind, sigmas, region, start, options=options, model=Watched(), **noises)
    assert len(seen) >= len(sigmas) - 1
    # At every call of the model, those within a step included.
    for latent, level in seen[1:]:
        x = latent.flatten(1)
        assert x.std(dim=0) / level.flatten() == pytest.approx(torch.ones(8).tolist(), abs=0.04)
        assert (torch.corrcoef(x.T) - torch.eye(8)).abs().max() < 0.04
    assert any(level.unique().numel() == 8 for _, level in seen), "every pixel at a level of its own"


@pytest.mark.parametrize("name", ["SA-Solver", "SA-Solver-Pece"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_sa_solver_adds_noise_in_the_middle_only(name: str, kind: str) -> None:
    """With a picture of nothing the corrector changes nothing, so the latent is noise at its level there too."""
    generator = torch.Generator().manual_seed(23)
    sigmas = schedule_for(kind, "simple" if kind == "flow" else "karras", 12)[:-1]
    start = torch.randn(SAMPLES, 1, 2, 4, generator=generator, dtype=torch.float64) * sigmas[0]
    draws, seen = [0], []

    class Watched(Nothing):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.append((x, level[:1]))
            return super().__call__(x, nominal, level)

    def normals(*_: Tensor) -> Tensor:
        draws[0] += 1
        return torch.randn(start.shape, generator=generator, dtype=torch.float64)

    run_solver(SOLVERS[name], kind, sigmas, FixedRegion(STRENGTHS), start, model=Watched(), randn_like=normals)
    for latent, level in seen:
        assert latent.flatten(1).std(dim=0) / level.flatten() == pytest.approx(torch.ones(8).tolist(), abs=0.04)
    percent = percent_to_sigma(kind)
    noisy = sum(percent(0.8) <= float(sigma) <= percent(0.2) for sigma in sigmas[1:-1])
    assert draws[0] == noisy
    assert 0 < noisy < len(sigmas) - 2
