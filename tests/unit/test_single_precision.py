"""Latents in float32, as hosts have them, against the same run in float64: what a step loses is rounding, also where
levels are close to each other or to 0 and a formula's closed form would be a difference of equals."""

from __future__ import annotations

import math

import pytest
import torch
from support.solvers import SHAPE, Changing, Network, Noise, run_solver, schedule_for, start_of
from test_maps_by_kind import CASES
from torch import Tensor

from asyndm_ext.solvers import SOLVERS, Solver

STEPS = 20
# Pixels that hardly move: steps of a hundred-thousandth of the host's.
HARDLY = torch.tensor([0.0, 0.45, 1 - 1e-3, 1 - 1e-5, 1 - 1e-7, 1.0], dtype=torch.float64)


def schedule(kind: str, name: str) -> Tensor:
    if name != "low":
        return schedule_for(kind, name, STEPS)
    start = 0.9 if kind == "flow" else 14.6
    sigmas = torch.linspace(math.log(start), math.log(0.002), STEPS, dtype=torch.float64).exp()
    return torch.cat([sigmas, sigmas.new_zeros(1)])


class InDtype(Network):
    """Answers in the dtype of its latent, from levels in that dtype."""

    def answers(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        self.mean = self.mean.to(x)
        return super().answers(x, sigma.to(x))


def difference(
    solver: Solver, kind: str, sigmas: Tensor, maps: list[Tensor], curve: str, noisy: bool, options: dict | None = None
) -> float:
    found = []
    for dtype in (torch.float64, torch.float32):
        noise = Noise()

        def normals(*_: Tensor) -> Tensor:
            return noise(torch.empty(SHAPE, dtype=dtype)) * noisy  # noqa: B023

        x = start_of(kind, sigmas).to(dtype)
        noises = {"model": InDtype(kind), "randn_like": normals, "noise_sampler": normals}
        found.append(run_solver(solver, kind, sigmas, Changing(maps), x, curve, options, **noises))
        assert found[-1].dtype == dtype
    return float((found[1].double() - found[0]).abs().max() / found[0].abs().max())


@pytest.mark.parametrize("name", ["first", "second", "low"])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_float32_is_float64_but_for_rounding(solver: Solver, kind: str, name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    names = {"first": "simple", "second": "shifted"} if kind == "flow" else {"first": "karras", "second": "exponential"}
    maps = [
        torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64)
        * torch.randint(2, (2, 1, 4, 5), generator=generator)
        for _ in range(STEPS)
    ]
    sigmas = schedule(kind, names.get(name, name))
    # The host's DDPM takes 1 - 1 / (sigma^2 + 1) itself, of which float32 keeps two digits at the end of "low".
    allowed = 5e-5 if solver is SOLVERS["DDPM"] and name == "low" else 1e-5
    assert difference(solver, kind, sigmas, maps, "quadratic", noisy=True) < allowed


# Without noise: that of such a step is the root of its length, of which float32 keeps little.
@pytest.mark.parametrize("name", ["first", "low"])
@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_a_pixel_that_hardly_moves_loses_nothing_but_rounding(solver: Solver, kind: str, name: str) -> None:
    generator = torch.Generator().manual_seed(7)
    maps = [HARDLY[torch.randint(len(HARDLY), (2, 1, 4, 5), generator=generator)] for _ in range(STEPS)]
    sigmas = schedule(kind, {"first": "simple" if kind == "flow" else "karras"}.get(name, name))
    taken = {*solver.options, *(argument for argument, _ in solver.stand_ins)}
    options = {option: 0.0 for option in ("eta", "s_noise") if option in taken}
    allowed = 5e-5 if solver is SOLVERS["DDPM"] and name == "low" else 1e-5
    assert difference(solver, kind, sigmas, maps, "piecewise linear", noisy=False, options=options) < allowed
