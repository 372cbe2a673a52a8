"""How fast each solver's error falls with the step count, under a map of strengths that differ from pixel to pixel.

    python tests/convergence.py

prints a table. The model is analytic: the exact denoiser of a mixture of two Gaussians per value, alone or with each
pixel looking at a blend of itself and its neighbours. The truth is the probability flow with every pixel on its own
curve, integrated by Runge-Kutta, so that nothing of the solvers or of the clock is compared with itself.

The base schedule is exponential and ends above 0: the level of a pixel is then one smooth function of the progress,
whatever the step count. Noise is off, and the guided and the unguided answer are one: CFG++ pulls by their difference
once a step, however short, so that there is no flow to converge to with any other guidance.

On a rectified flow the equation is the same, and the model knows what ``(1 - sigma) * clean + sigma * noise`` means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import FLOW, SNR, SOLVERS

ENDS = {"noise": (10.0, 0.05), "flow": (0.95, 0.02)}
COUNTS = (20, 40, 80, 160)
SIDE = 8

# Solver, options, order that it shows with one level for all pixels. k-diffusion's 3M SDE weighs its bend with half of
# what a third order needs, and its multistep methods start with a step of first order. SEEDS 3 is of third order where
# pixels are alone: within a step they are on straight lines between their levels, not on their curves, and third order
# sees that in the neighbours. DPM++ 2S Ancestral CFG++ is not here: it carries the latent on from the difference of two
# model calls of one step, and converges to nothing, with one level for all pixels neither.
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
    ("Euler CFG++", {}, 1),
    ("Euler Ancestral CFG++", {"eta": 0.0}, 1),
    ("DPM++ 2M CFG++", {}, 2),
    ("DPM++ SDE CFG++", {"eta": 0.0}, 2),
    ("DPM++ 3M SDE CFG++", {"eta": 0.0}, 2),
    ("RES Solver", {}, 2),
    ("RES Multistep", {}, 2),
    ("RES Multistep CFG++", {}, 2),
    ("RES Multistep Ancestral", {"eta": 0.0}, 2),
    ("Gradient Estimation", {}, 1),
    ("Gradient Estimation CFG++", {}, 1),
    ("SEEDS 2 DP", {"eta": 0.0}, 2),
    ("SEEDS 3 DP", {"eta": 0.0}, 2),
    ("SA-Solver", {"s_noise": 0.0}, 3),
    ("SA-Solver-Pece", {"s_noise": 0.0}, 3),
    ("Kohaku_LoNyu_Yog", {"eta": 0.0}, 1),
]

# Lower ones on a flow, where the start is steeper in half-log-SNR, and the first step's error shows for longer.
FLOW_ORDERS = {"LMS": 2.0, "DEIS": 2.0, "SA-Solver": 2.5, "SA-Solver-Pece": 2.5}

# On a schedule that ends above 0 these give back an earlier state, or the picture, as their hosts do.
END_EARLY = ("SA-Solver", "SA-Solver-Pece", "RES Solver")

# Forms for a rectified flow, by the hosts' functions.
FLOW_CASES: list[tuple[str, dict[str, float], float]] = [
    ("sample_euler_ancestral", {"eta": 0.0}, 1),
    ("sample_dpm_2_ancestral", {"eta": 0.0}, 2),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.0}, 2),
    ("sample_dpmpp_sde", {"eta": 0.0}, 2),
    ("sample_dpmpp_2m_sde", {"eta": 0.0}, 2),
    ("sample_dpmpp_3m_sde", {"eta": 0.0}, 2),
]


FORMS = SOLVERS | FLOW | SNR
KINDS = [
    *((case, "noise") for case in CASES),
    *(((name, options, FLOW_ORDERS.get(name, order)), "flow") for name, options, order in CASES + FLOW_CASES),
]


class Mixture:
    """Exact denoiser of two Gaussians per value; ``coupling`` is the share of the neighbours in what a pixel sees."""

    def __init__(self, coupling: float = 0.0, kind: str = "noise") -> None:
        generator = torch.Generator().manual_seed(3)
        self.flow = kind == "flow"
        self.last_x = self.last_uncond = torch.zeros(())
        self.coupling = coupling
        self.mean = 1 + 0.3 * torch.randn(1, 2, SIDE, SIDE, generator=generator, dtype=torch.float64)
        self.variance = 0.4**2

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.last_x = x
        around = sum(x.roll(shift, dim) for shift in (1, -1) for dim in (-1, -2)) / 4
        y = torch.lerp(x, around, self.coupling) if self.coupling else x
        signal, noise = 1 - level if self.flow else torch.ones_like(level), level**2
        total = signal**2 * self.variance + noise
        side = torch.tanh(signal * self.mean * y / total)  # how sure it is of the component at +mean, from -1 to 1
        self.last_uncond = (signal * self.variance * y + noise * self.mean * side) / total
        return self.last_uncond

    def attention(self) -> None:
        return None


def strength_map(strongest: float) -> Tensor:
    wave = torch.linspace(0, math.pi, SIDE, dtype=torch.float64).sin()
    return strongest * (wave[:, None] * wave[None, :]).view(1, 1, SIDE, SIDE)


def start(kind: str = "noise") -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return ENDS[kind][0] * torch.randn(1, 2, SIDE, SIDE, generator=generator, dtype=torch.float64)


@cache
def truth(coupling: float, strongest: float, kind: str = "noise", end: float = 1.0, steps: int = 600) -> Tensor:
    """The flow on quadratic curves ``v = (1-w)(1-u) + w(1-u^2)`` up to the progress ``end``.

    Log-sigma is linear in v; classical Runge-Kutta in u.
    """
    model, w, x, (high, low) = Mixture(coupling, kind), strength_map(strongest), start(kind), ENDS[kind]
    span = math.log(high / low)

    def rate(u: float, x: Tensor) -> Tensor:
        height = (1 - w) * (1 - u) + w * (1 - u * u)
        level = low * (span * height).exp()
        return span * (-(1 - w) - 2 * w * u) * (x - model(x, 0.0, level))

    h = end / steps
    for i in range(steps):
        u = i * h
        k1 = rate(u, x)
        k2 = rate(u + h / 2, x + h / 2 * k1)
        k3 = rate(u + h / 2, x + h / 2 * k2)
        k4 = rate(u + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def error(
    name: str, options: dict[str, float], coupling: float, strongest: float, steps: int, kind: str = "noise"
) -> float:
    """Root of the mean squared error at the end, or where the solver's last model call is if it does not go there."""
    high, low = ENDS[kind]
    sigmas = torch.linspace(math.log(high), math.log(low), steps + 1, dtype=torch.float64).exp()
    schedule = PixelSchedule(BaseSchedule.from_sigmas(sigmas), (1, 1, SIDE, SIDE), "quadratic")
    percent_to_sigma = (lambda _: 2.0) if kind == "flow" else (lambda _: 99.0)  # no noise in SA-Solver
    model, x, region = Mixture(coupling, kind), start(kind), FixedRegion(strength_map(strongest))
    run = Run(model, schedule, region, x, FromHost(flow=kind == "flow", percent_to_sigma=percent_to_sigma))
    found, end = FORMS[name].sample(run, x, **options), 1.0
    if name in END_EARLY:
        found, end = model.last_x, 1 - 1 / steps
    return float((found - truth(coupling, strongest, kind, end)).square().mean().sqrt())


def orders(errors: Sequence[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def main(show: Callable[[str], None] = print) -> None:
    show(f"{'solver':26s} {'model':6s} {'pixels':8s} {'map':8s} " + " ".join(f"{n:>9d}" for n in COUNTS) + "  order")
    for (name, options, _), model in KINDS:
        for coupling in (0.0, 0.4):
            for strongest in (0.0, 0.8):
                errors = [error(name, options, coupling, strongest, count, model) for count in COUNTS]
                shown = " ".join(f"{value:9.2e}" for value in errors)
                pixels, kind = "coupled" if coupling else "alone", "strength" if strongest else "uniform"
                found = " ".join(f"{order:.2f}" for order in orders(errors))
                show(f"{name:26s} {model:6s} {pixels:8s} {kind:8s} {shown}  {found}")


if __name__ == "__main__":
    main()
