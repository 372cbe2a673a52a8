"""Solvers that are not in k-diffusion, against their formulas written once more, for one level at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from scipy import integrate
from support.solvers import (
    KINDS_AND_SCHEDULES,
    SCHEDULES,
    Gaussian,
    Network,
    Noise,
    close,
    randn,
    run_solver,
    schedule_for,
    start_of,
)
from torch import Tensor

from asyndm_ext.model.call import lcm_denoised
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.solvers import SOLVERS

Slope = Callable[[Tensor, float], Tensor]


def precise(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


def lcm(model: Gaussian, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    for here, there in pairwise(sigmas):
        x = model.denoised(x, precise(here))
        if there:
            x = x + there * noise(x)
    return x


def ddpm(model: Gaussian, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """The posterior of Ho et al. (2020), Eq. 7, between the clean and the noisy latent."""
    for here, there in pairwise(sigmas):
        kept, kept_next = 1 / (1 + here**2), 1 / (1 + there**2)
        alpha = kept / kept_next
        clean = model.denoised(x, precise(here))
        mean = math.sqrt(kept_next) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - kept_next) * math.sqrt(kept) * x
        mean = mean / (1 - kept)
        if there:
            mean = mean + math.sqrt((1 - alpha) * (1 - kept_next) / (1 - kept)) * noise(x)
        x = mean / math.sqrt(kept_next)
    return x


def heunpp2(model: Gaussian, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    d = slope_of(model)
    for i, here in enumerate(sigmas[:-1]):
        noise(x)
        ahead = sigmas[i + 1 : -1][:2]  # the end of the schedule is not looked at
        y, at, slopes = x, here, [d(x, here)]
        for level in ahead:
            y = y + slopes[-1] * (level - at)
            at = level
            slopes.append(d(y, at))
        shares = [level / (len(slopes) * sigmas[0]) for level in ahead]
        total = (1 - sum(shares)) * slopes[0]
        for share, slope in zip(shares, slopes[1:], strict=True):
            total = total + share * slope
        x = x + total * (sigmas[i + 1] - here)
    return x


def adams(weights: Callable[[list[float], float], list[float]], order: int) -> Callable:
    """A multistep method by its weights, a function of the last levels (newest first) and the next."""

    def solve(model: Gaussian, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        d, slopes = slope_of(model), []
        for i in range(len(sigmas) - 1):
            slopes = [d(x, sigmas[i]), *slopes][:order]
            levels = sigmas[: i + 1][::-1][:order]
            for weight, slope in zip(weights(levels, sigmas[i + 1]), slopes, strict=True):
                x = x + weight * slope
        return x

    return solve


def slope_of(model: Gaussian) -> Slope:
    return lambda x, sigma: (x - model.denoised(x, precise(sigma))) / sigma


def even_weights(levels: list[float], end: float) -> list[float]:
    table = {1: [1], 2: [3, -1], 3: [23, -16, 5], 4: [55, -59, 37, -9]}[len(levels)]
    return [(end - levels[0]) * weight / sum(table) for weight in table]


def uneven_weights(levels: list[float], end: float) -> list[float]:
    """Weight by weight, as the host has them."""
    ends = [end, *levels]
    a, b, c, d = [ends[k] - ends[k + 1] for k in range(len(levels))] + [math.nan] * (4 - len(levels))
    if len(levels) == 1:
        return [a]
    weights = [1 + a / b / 2, -a / b / 2, 0.0, 0.0]
    if len(levels) > 2:
        third = (1 - a / (3 * (a + b)) * a * (a + b) / (b * (b + c))) / 2
        weights = [weights[0] + third, weights[1] - (1 + b / c) * third, third * b / c, 0.0]
    if len(levels) > 3:
        fourth = (1 - a / (3 * (a + b))) / 2 + (1 - a / (2 * (a + b))) * a / (6 * (a + b + c))
        fourth *= a * (a + b) * (a + b + c) / (b * (b + c) * (b + c + d))
        e = b * (b + c) / (c * (c + d))
        parts = [1, -(1 + b / c + e), b / c + e * (1 + c / d), -e * b / c]
        weights = [weight + fourth * part for weight, part in zip(weights, parts, strict=True)]
    return [a * weight for weight in weights[: len(levels)]]


def deis_weights(levels: list[float], end: float) -> list[float]:
    """The integrals of Zhang & Chen (2022) over the time of the VP diffusion, by adaptive quadrature."""
    if len(levels) == 1 or end == 0:
        return [end - levels[0], *[0.0] * (len(levels) - 1)]
    low, high = (float((torch.tensor(s, dtype=torch.float32) ** 2 + 1).log()) for s in (0.002, 80.0))
    spread = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    least = high - spread / 2

    def log_alpha(t: float) -> float:
        return -(spread * t**2 / 2 + least * t)

    def time(sigma: float) -> float:
        return (math.sqrt(least**2 + 2 * spread * math.log1p(sigma**2)) - least) / spread

    at = [time(level) for level in levels]

    def integrand(t: float, j: int) -> float:
        alpha = math.exp(log_alpha(t))
        rate = (spread * t + least) / 2 / math.sqrt(alpha * (1 - alpha))
        return rate * math.prod((t - other) / (at[j] - other) for k, other in enumerate(at) if k != j)

    # The host's sum of 10,000 points is a trapezoid's, one step too short and with both ends in full.
    to, weights, points = time(end), [], 10_000
    for j in range(len(levels)):
        whole = integrate.quad(integrand, at[0], to, args=(j,), epsrel=1e-12)[0]
        ends = (integrand(at[0], j) + integrand(to, j)) * (to - at[0]) / 2
        weights.append(whole + (ends - whole) / points)
    return weights


RESTATED = {
    "LCM": (lcm, 1e-10),
    "DDPM": (ddpm, 1e-10),
    "HeunPP2": (heunpp2, 1e-10),
    "IPNDM": (adams(even_weights, 4), 1e-10),
    "IPNDM_V": (adams(uneven_weights, 4), 1e-10),
    "DEIS": (adams(deis_weights, 3), 1e-7),
}


@pytest.mark.parametrize(("kind", "schedule"), [*(("sine", s) for s in SCHEDULES), *KINDS_AND_SCHEDULES])
@pytest.mark.parametrize("name", RESTATED)
def test_strength_zero_is_the_formula(name: str, kind: str, schedule: str) -> None:
    sigmas = schedule_for(kind, schedule)
    x = start_of(kind, sigmas)
    formula, tolerance = RESTATED[name]
    their_noise, our_noise = Noise(), Noise()
    if kind == "sine":
        theirs = ours = Gaussian("sigma")
    else:
        theirs, ours = SimpleNamespace(denoised=lambda x, sigma: Network(kind).answers(x, sigma)[0]), Network(kind)
    expected = formula(theirs, x, sigmas.tolist(), their_noise)
    region = FixedRegion.everything((2, 1, 4, 5), 0.0)
    found = run_solver(SOLVERS[name], kind, sigmas, region, x, model=ours, randn_like=our_noise)
    close(found, expected, tolerance)
    assert our_noise.drawn == their_noise.drawn


def test_deis_weights_are_the_hosts_sum() -> None:
    """The host's 10,000 points against the integral that both formulas here stand for."""
    levels, end, points = [3.0, 4.2, 5.9], 2.1, 10_000
    low, high = (math.log(s**2 + 1) for s in (0.002, 80.0))
    spread = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    least = high - spread / 2
    at = [(math.sqrt(least**2 + 2 * spread * math.log1p(s**2)) - least) / spread for s in [*levels, end]]
    t = torch.linspace(at[0], at[-1], points, dtype=torch.float64)
    alpha = torch.exp(-(spread * t**2 / 2 + least * t))
    rate = (spread * t + least) / 2 / (alpha * (1 - alpha)).sqrt()
    for j, weight in enumerate(deis_weights(levels, end)):
        basis = torch.ones_like(t)
        for k in range(3):
            if k != j:
                basis = basis * (t - at[k]) / (at[j] - at[k])
        summed = float((rate * basis).sum()) * (at[-1] - at[0]) / points
        assert summed == pytest.approx(weight, rel=1e-6)


def test_lcm_takes_each_pixels_level_through_a_scalar_call() -> None:
    """The host's answer at the nominal level, turned into the answer at the map."""
    x, mean = randn(2, 4, 6, 5, seed=1), randn(2, 4, 6, 5, seed=2)
    s = torch.full((2, 1, 1, 1), 5.0, dtype=torch.float64)
    m = randn(2, 1, 6, 5, seed=3).exp()
    t_s, t_m = torch.full_like(s, 799.0), (40 * m).round()

    def eps(scaled: Tensor) -> Tensor:
        return scaled.sin() + mean

    def consistency(x: Tensor, sigma: Tensor, t: Tensor) -> Tensor:
        scaled = 10 * t
        jump = x - sigma * eps(x / (sigma**2 + 1).sqrt())
        return scaled / (scaled**2 + 0.25).sqrt() * jump + 0.25 / (scaled**2 + 0.25) * x

    close(lcm_denoised(lambda y: consistency(y, s, t_s), x, s, m, t_s, t_m), consistency(x, m, t_m), 1e-12)
    close(lcm_denoised(lambda y: consistency(y, s, t_s), x, s, s, t_s, t_s), consistency(x, s, t_s), 1e-12)
