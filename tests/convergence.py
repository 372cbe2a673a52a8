"""How fast each solver's error falls with the step count, under a map of strengths that differ from pixel to pixel.

    python tests/convergence.py

prints a table. The model is analytic: the exact denoiser of a mixture of two Gaussians per value, alone or with each
pixel looking at a blend of itself and its neighbours. The truth is the probability flow with every pixel on its own
curve, integrated by Runge-Kutta, so that nothing of the solvers or of the clock is compared with itself.

The base schedule is exponential and ends above 0: the level of a pixel is then one smooth function of the progress,
whatever the step count. Noise is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.regions import FixedRegion
from asyndm_ext.run import Run
from asyndm_ext.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.solvers import SOLVERS

HIGH, LOW = 10.0, 0.05
COUNTS = (20, 40, 80, 160)
SIDE = 8

# Solver, options, order that it shows with one level for all pixels. k-diffusion's 3M SDE weighs its bend with half of
# what a third order needs, and its multistep methods start with a step of first order.
CASES: list[tuple[str, dict[str, float], float]] = [
    ("Euler", {}, 1),
    ("Euler a", {"eta": 0.0}, 1),
    ("Heun", {}, 2),
    ("DPM2", {}, 2),
    ("DPM2 a", {"eta": 0.0}, 2),
    ("DPM++ 2M", {}, 2),
    ("DPM++ 2S a", {"eta": 0.0}, 2),
    ("DPM++ SDE", {"eta": 0.0}, 2),
    ("DPM++ 2M SDE", {"eta": 0.0}, 2),
    ("DPM++ 2M SDE Heun", {"eta": 0.0}, 2),
    ("DPM++ 3M SDE", {"eta": 0.0}, 2),
    ("LMS", {}, 3),
    ("HeunPP2", {}, 1),
    ("IPNDM", {}, 2),
    ("IPNDM_V", {}, 2),
    ("DEIS", {}, 2.8),
]


class Mixture:
    """Exact denoiser of two Gaussians per value; ``coupling`` is the share of the neighbours in what a pixel sees."""

    def __init__(self, coupling: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(3)
        self.coupling = coupling
        self.mean = 1 + 0.3 * torch.randn(1, 2, SIDE, SIDE, generator=generator, dtype=torch.float64)
        self.variance = 0.4**2

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        around = sum(x.roll(shift, dim) for shift in (1, -1) for dim in (-1, -2)) / 4
        y = torch.lerp(x, around, self.coupling) if self.coupling else x
        noise = level**2
        total = self.variance + noise
        side = torch.tanh(self.mean * y / total)  # how sure it is of the component at +mean, from -1 to 1
        return (self.variance * y + noise * self.mean * side) / total

    def attention(self) -> None:
        return None


def strength_map(strongest: float) -> Tensor:
    wave = torch.linspace(0, math.pi, SIDE, dtype=torch.float64).sin()
    return strongest * (wave[:, None] * wave[None, :]).view(1, 1, SIDE, SIDE)


def start() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return HIGH * torch.randn(1, 2, SIDE, SIDE, generator=generator, dtype=torch.float64)


@cache
def truth(coupling: float, strongest: float, steps: int = 600) -> Tensor:
    """The flow on quadratic curves ``v = (1-w)(1-u) + w(1-u^2)``, log-sigma linear in v; classical Runge-Kutta in u."""
    model, w, x, span = Mixture(coupling), strength_map(strongest), start(), math.log(HIGH / LOW)

    def rate(u: float, x: Tensor) -> Tensor:
        height = (1 - w) * (1 - u) + w * (1 - u * u)
        level = LOW * (span * height).exp()
        return span * (-(1 - w) - 2 * w * u) * (x - model(x, 0.0, level))

    h = 1 / steps
    for i in range(steps):
        u = i * h
        k1 = rate(u, x)
        k2 = rate(u + h / 2, x + h / 2 * k1)
        k3 = rate(u + h / 2, x + h / 2 * k2)
        k4 = rate(u + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def error(name: str, options: dict[str, float], coupling: float, strongest: float, steps: int) -> float:
    """Root of the mean squared error at the end."""
    sigmas = torch.linspace(math.log(HIGH), math.log(LOW), steps + 1, dtype=torch.float64).exp()
    schedule = PixelSchedule(BaseSchedule.from_sigmas(sigmas), (1, 1, SIDE, SIDE), "quadratic")
    run = Run(Mixture(coupling), schedule, FixedRegion(strength_map(strongest)), start())
    found = SOLVERS[name].sample(run, start(), **options)
    return float((found - truth(coupling, strongest)).square().mean().sqrt())


def orders(errors: Sequence[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def main(show: Callable[[str], None] = print) -> None:
    show(f"{'solver':18s} {'pixels':8s} {'map':8s} " + " ".join(f"{count:>9d}" for count in COUNTS) + "  order")
    for name, options, _ in CASES:
        for coupling in (0.0, 0.4):
            for strongest in (0.0, 0.8):
                errors = [error(name, options, coupling, strongest, count) for count in COUNTS]
                shown = " ".join(f"{value:9.2e}" for value in errors)
                pixels, kind = "coupled" if coupling else "alone", "strength" if strongest else "uniform"
                show(f"{name:18s} {pixels:8s} {kind:8s} {shown}  " + " ".join(f"{o:.2f}" for o in orders(errors)))


if __name__ == "__main__":
    main()
