"""DPM-Solver in log-sigma (Lu et al. 2022) with k-diffusion's two ways of choosing the steps.

Both walk on the master clock: what they choose are the host's own levels. A pixel's step is what its clock makes of
that, and the stages within the step lie on the straight line between the pixel's own two levels (in log-sigma), so
each pixel takes DPM-Solver's step of its own length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule
from asyndm_ext.run import Run
from asyndm_ext.solvers.exponential import phis
from asyndm_ext.solvers.helpers import ancestral_step
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver


class Step:
    """DPM-Solver's step of orders 1 to 3 from where the run is to ``level`` (the host itself: to ``nominal``).

    Args:
        more: maps that are wanted beside the latent too, :attr:`more` then.
    """

    def __init__(self, run: Run, x: Tensor, eps: Tensor, nominal: Tensor, level: Tensor, *more: Tensor) -> None:
        self.run, self.x, self.eps = run, x, eps
        self.start = torch.tensor(run.schedule.nominal, dtype=torch.float64), run.exact
        self.end = nominal, level
        h = (self.start[1] / level).log()
        self.slopes: dict[float, Tensor] = {}
        # All that any order may need, in one copy: levels on the way, how far it is there, and weights of slopes.
        self.levels = {share: self.at(share)[1] for share in (1 / 3, 1 / 2, 2 / 3)}
        fall = self.start[1] - level
        weights = {share: fall / (2 * share) for share in (1 / 3, 1 / 2)}
        bends = (
            self.levels[2 / 3] * 2 * (2 / 3) * h * phis(2 / 3 * h, 2)[2],
            level / (2 / 3) * h * phis(h, 2)[2],
        )
        falls = {share: self.start[1] - there for share, there in self.levels.items()} | {1.0: fall}
        maps = run.maps.all_on_device(*self.levels.values(), *falls.values(), *weights.values(), *bends, *more)
        sent = iter(maps)
        self.beside = {share: next(sent) for share in self.levels}
        self.falls = {share: next(sent) for share in falls}
        self.weights = {share: next(sent) for share in weights}
        self.bends = next(sent), next(sent)
        self.more = list(sent)

    def at(self, share: float) -> tuple[Tensor, Tensor]:
        """The host's level and the level map at a share of the step, straight in log-sigma."""
        nominal, level = (a * (b / a) ** share for a, b in zip(self.start, self.end, strict=True))
        return nominal, level

    def slope(self, share: float, x: Tensor) -> Tensor:
        """Change of eps since the start of the step; the model is asked once for each share."""
        if share not in self.slopes:
            denoised = self.run.model_at(x, float(self.at(share)[0]), self.levels[share])
            self.slopes[share] = (x - denoised) / self.beside[share] - self.eps
        return self.slopes[share]

    def first(self, share: float = 1.0) -> Tensor:
        return self.x - self.falls[share] * self.eps

    def second(self, share: float = 1 / 2) -> Tensor:
        return self.first() - self.weights[share] * self.slope(share, self.first(share))

    def third(self) -> Tensor:
        u2 = self.first(2 / 3) - self.bends[0] * self.slope(1 / 3, self.first(1 / 3))
        return self.first() - self.bends[1] * self.slope(2 / 3, u2)


def noisy_end(sigma: Tensor, sigma_next: Tensor, end: float, eta: float) -> tuple[Tensor, Tensor]:
    """Where an ancestral step goes down to, not below the schedule's end, and the noise that brings it back up."""
    down = ancestral_step(sigma, sigma_next, eta)[0].clamp_min(end)
    return down, (sigma_next**2 - down**2).clamp_min(0).sqrt()


def fast_schedule(arguments: Mapping[str, Any]) -> BaseSchedule:
    """Equal steps in log-sigma, of three model calls each and a shorter one or two at the end."""
    ends = (math.log(float(arguments["sigma_max"])), math.log(float(arguments["sigma_min"])))
    return BaseSchedule(torch.linspace(*ends, arguments["n"] // 3 + 2, dtype=torch.float64).exp())


def fast_orders(n: int) -> list[int]:
    """The order of each step, which is its number of model calls: ``n`` together."""
    return [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]


@torch.no_grad()
def sample_dpm_fast(run: Run, x: Tensor, n: int, eta: float = 0.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-fast; ends at the lowest sigma, not at 0, as the host's does."""
    end, orders = run.nominal(run.count), fast_orders(n)
    for i in run.steps():
        nominal, level = torch.tensor(run.nominal(i), dtype=torch.float64), run.exact
        denoised = run.model(x)
        run.report(i, x, denoised)
        ahead = run.peek(run.nominal(i + 1))
        nominal_down, _ = noisy_end(nominal, torch.tensor(ahead.nominal, dtype=torch.float64), end, eta)
        down, up = noisy_end(level, ahead.level, end, eta)
        step = Step(run, x, (x - denoised) / run.level, nominal_down, down, up)
        x = (step.first, step.second, step.third)[orders[i] - 1]()
        run.move(ahead)
        x = x + step.more[0] * s_noise * run.randn_like(x)
    return x


class StepSize:
    """k-diffusion's PID controller: the step in the host's log-sigma from the errors of the last steps."""

    def __init__(self, h: float, p: float, i: float, d: float, order: float, safety: float) -> None:
        self.h = h
        self.exponents = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self.safety = safety
        self.inverse_errors: list[float] = []

    def accepts(self, error: float) -> bool:
        """Whether a step with this error counts; changes the next step's size in any case."""
        inverse = 1 / (error + 1e-8)
        self.inverse_errors = [inverse, *(self.inverse_errors[1:] or (inverse, inverse))]
        factor = math.prod(e**b for e, b in zip(self.inverse_errors, self.exponents, strict=True))
        factor = 1 + math.atan(factor - 1)  # never more than 2.6-fold
        self.h *= factor
        if factor >= self.safety:
            self.inverse_errors = [inverse, *self.inverse_errors[:2]]
            return True
        return False


def adaptive_schedule(arguments: Mapping[str, Any]) -> BaseSchedule:
    """Straight in log-sigma: the progress is the share of the log-sigma range that is done."""
    ends = float(arguments["sigma_max"]), float(arguments["sigma_min"])
    return BaseSchedule(torch.tensor(ends, dtype=torch.float64))


@torch.no_grad()
def sample_dpm_adaptive(
    run: Run,
    x: Tensor,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-12 and -23: steps of the host's log-sigma, tried until the error over all pixels is small enough."""
    if order not in (2, 3):
        raise ValueError(f"order should be 2 or 3, got {order}")
    end, x_prev, trials = run.nominal(run.count), x, 0
    size = StepSize(abs(h_init), pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
    while math.log(run.schedule.nominal / end) > 1e-5:
        nominal, level = torch.tensor(run.schedule.nominal, dtype=torch.float64), run.exact
        denoised = run.model(x)  # also after a rejected step, as the host does: it counts its calls
        ahead = run.peek(max(end, run.schedule.nominal * math.exp(-size.h)))
        nominal_down, _ = noisy_end(nominal, torch.tensor(ahead.nominal, dtype=torch.float64), end, eta)
        down, up = noisy_end(level, ahead.level, end, eta)
        step = Step(run, x, (x - denoised) / run.level, nominal_down, down, up)
        low, high = (step.first(), step.second()) if order == 2 else (step.second(1 / 3), step.third())
        tolerated = (rtol * torch.maximum(low.abs(), x_prev.abs())).clamp_min(atol)
        if size.accepts(float(((low - high) / tolerated).norm()) / x.numel() ** 0.5):
            run.move(ahead)
            x_prev, x = low, high + step.more[0] * s_noise * run.randn_like(x)
        run.report(trials, x, denoised, nominal=run.schedule.nominal)
        trials += 1
    return x


_ADAPTIVE_OPTIONS = (
    *("order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety"),
    *("eta", "s_noise"),
)

REGISTERED = (
    Row(
        Solver(sample_dpm_fast, "sigma", ("n", "eta", "s_noise"), own_schedule=fast_schedule),
        labels=("DPM fast",),
        functions=("sample_dpm_fast",),
    ),
    Row(
        Solver(sample_dpm_adaptive, "sigma", _ADAPTIVE_OPTIONS, own_schedule=adaptive_schedule, adaptive=True),
        labels=("DPM adaptive",),
        functions=("sample_dpm_adaptive",),
    ),
)
