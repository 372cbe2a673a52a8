"""The hosts' samplers that are not in k-diffusion, written once more: for one level at a time, in Python's floats.

``solve(model, x, sigmas, noise)``; ``model(x, sigma)`` gives ``(denoised, unguided)``, ``noise(x)`` the next normals.
Those that count in half-log-SNR take ``flow``: on a rectified flow alpha is 1 - sigma, on noise levels 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from torch import Tensor

Answers = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Noise = Callable[[Tensor], Tensor]
Solve = Callable[[Answers, Tensor, list[float], Noise], Tensor]

NEAR_ONE = 0.9999


def ancestral(here: float, there: float, eta: float) -> tuple[float, float]:
    if eta == 0:
        return there, 0.0
    up = min(there, eta * math.sqrt(there**2 * (here**2 - there**2) / here**2))
    return math.sqrt(there**2 - up**2), up


# -- CFG++


def euler_cfgpp(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, unguided = model(x, here)
        x = clean + (x - unguided) / here * there
    return x


def euler_ancestral_cfgpp(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, flow: bool = False, eta: float = 1.0
) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, unguided = model(x, here)
        if there == 0:
            return clean
        signal, signal_next = (1 - here, 1 - there) if flow else (1.0, 1.0)
        if signal == 0:
            down, up = (0.0, there / signal_next) if eta else (there / signal_next, 0.0)
        else:
            down, up = ancestral(here / signal, there / signal_next, eta)
        x = signal_next * (clean + down * (x - signal * unguided) / here + up * noise(x))
    return x


def dpmpp_2s_cfgpp(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, unguided = model(x, here)
        down, up = ancestral(here, there, eta)
        if down == 0:
            x = clean
        else:
            h = math.log(here / down)
            middle = here * math.exp(-h / 2)
            look = middle / here * (x + clean - unguided) + (1 - middle / here) * clean
            second, unguided = model(look, middle)
            x = down / here * (x + clean - unguided) + (1 - down / here) * second
        if there > 0:
            x = x + up * noise(x)
    return x


def dpmpp_2m_cfgpp(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    old = None
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean, unguided = model(x, here)
        x = clean + there / here * (x - unguided)
        if old is not None and there > 0:
            ratio = math.log(here / there) / math.log(sigmas[i - 1] / here)
            x = x + (1 - there / here) * ratio / 2 * (clean - old)
        old = unguided
    return x


def dpmpp_sde(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0, cfgpp: bool = False
) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, _ = model(x, here)
        if there == 0:
            return clean
        middle = math.sqrt(here * there)
        down, up = ancestral(here, middle, eta)
        look = down / here * x + (1 - down / here) * clean + up * noise(x)
        second, unguided = model(look, middle)
        down, up = ancestral(here, there, eta)
        if cfgpp:
            x = second + (x - unguided) / here * down + up * noise(x)
        else:
            x = down / here * x + (1 - down / here) * second + up * noise(x)
    return x


def dpmpp_3m_sde(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0, cfgpp: bool = False
) -> Tensor:
    answers: list[Tensor] = []
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean, unguided = model(x, here)
        if there == 0:
            return clean
        h = math.log(here / there)
        z = h * (eta + 1)
        x = math.exp(-z) * (x + clean - unguided if cfgpp else x) + (1 - math.exp(-z)) * clean
        gaps = [math.log(sigmas[k - 1] / sigmas[k]) / h for k in range(i, max(i - 2, 0), -1)]
        answers = [clean, *answers][:3]
        weight_2 = math.expm1(-z) / z + 1
        if len(gaps) == 1:
            x = x + weight_2 * (answers[0] - answers[1]) / gaps[0]
        elif len(gaps) == 2:
            near, far = (answers[0] - answers[1]) / gaps[0], (answers[1] - answers[2]) / gaps[1]
            bend = (near - far) / (gaps[0] + gaps[1])
            x = x + weight_2 * (near + bend * gaps[0]) - (weight_2 / z - 0.5) * bend
        if eta:
            x = x + there * math.sqrt(1 - math.exp(-2 * h * eta)) * noise(x)
    return x


def dpmpp_2m_sde(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0, cfgpp: bool = False
) -> Tensor:
    old = None
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean, unguided = model(x, here)
        if there == 0:
            return clean
        h = math.log(here / there)
        share = 1 - math.exp(-h * (eta + 1))
        x = (1 - share) * (x + clean - unguided if cfgpp else x) + share * clean
        if old is not None:
            x = x + share / 2 * h / math.log(sigmas[i - 1] / here) * (clean - old)
        if eta:
            x = x + there * math.sqrt(1 - math.exp(-2 * h * eta)) * noise(x)
        old = clean
    return x


# -- exponential integrators


def res_solver(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    *inner, _ = sigmas
    for here, there in pairwise(inner):
        h = math.log(here / there)
        clean, _ = model(x, here)
        second, _ = model(math.exp(-h / 2) * x + (1 - math.exp(-h / 2)) * clean, here * math.exp(-h / 2))
        phi_1, phi_2 = (1 - math.exp(-h)) / h, (math.exp(-h) - 1 + h) / h**2
        x = math.exp(-h) * x + h * ((phi_1 - 2 * phi_2) * clean + 2 * phi_2 * second)
    return model(x, inner[-2] if len(inner) > 1 else inner[-1])[0]


def res_multistep(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 0.0, cfgpp: bool = False
) -> Tensor:
    old = old_down = None
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean, unguided = model(x, here)
        down, up = ancestral(here, there, eta)
        answer = unguided if cfgpp else clean
        if down == 0 or old is None:
            x = clean + (x - answer) / here * down if cfgpp else x + (x - clean) / here * (down - here)
        else:
            h = math.log(here / down)
            c_2 = math.log(old_down / sigmas[i - 1]) / h
            phi_1, phi_2 = (1 - math.exp(-h)) / h, (math.exp(-h) - 1 + h) / h**2
            x = math.exp(-h) * (x + clean - answer) + h * ((phi_1 - phi_2 / c_2) * answer + phi_2 / c_2 * old)
        if there > 0:
            x = x + up * noise(x)
        old, old_down = answer, down
    return x


def gradient_estimation(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, gamma: float = 2.0, cfgpp: bool = False
) -> Tensor:
    old = None
    for here, there in pairwise(sigmas):
        clean, unguided = model(x, here)
        if there == 0:
            return clean
        slope = (x - (unguided if cfgpp else clean)) / here
        x = clean + there * slope if cfgpp else x + (there - here) * slope
        if old is not None:
            x = x + (gamma - 1) * (there - here) * (slope - old)
        old = slope
    return x


def er_sde(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    def scale(s):
        return s * (np.exp(s**0.3) + 10)

    answers: list[Tensor] = []
    slopes: list[Tensor] = []
    for i, (here, there) in enumerate(pairwise(sigmas)):
        clean, _ = model(x, here)
        if there == 0:
            return clean
        ratio = float(scale(there) / scale(here))
        x = ratio * x + (1 - ratio) * clean
        points = there + (here - there) / 200 * np.arange(200)
        width = (here - there) / 200
        if i > 0:
            slopes.append((clean - answers[-1]) / (here - sigmas[i - 1]))
            x = x + (there - here + float((width / scale(points)).sum() * scale(there))) * slopes[-1]
        if i > 1:
            bend = (slopes[-1] - slopes[-2]) / ((here - sigmas[i - 2]) / 2)
            moment = float((width * (points - here) / scale(points)).sum() * scale(there))
            x = x + ((there - here) ** 2 / 2 + moment) * bend
        x = x + math.sqrt(max(there**2 - here**2 * ratio**2, 0.0)) * noise(x)
        answers.append(clean)
    return x


def seeds(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, parts: int = 2, eta: float = 1.0) -> Tensor:
    """Of 2 or 3 parts; each part's noise decays over the parts after it."""
    for here, there in pairwise(sigmas):
        clean, _ = model(x, here)
        if there == 0:
            return clean
        h = math.log(here / there)
        z = h * (eta + 1)
        normals = [noise(x) for _ in range(parts)]
        last, y = clean, x
        for part in range(1, parts + 1):
            share = part / parts
            level = here * math.exp(-share * h)
            y = math.exp(-share * z) * x + (1 - math.exp(-share * z)) * clean
            if part > 1 and parts == 3:
                y = y + share / ((part - 1) / parts) * (math.expm1(-share * z) / (share * z) + 1) * (last - clean)
            elif part > 1:
                y = y + (1 - math.exp(-z)) * (last - clean)
            for j in range(part):
                spread = math.sqrt(1 - math.exp(-2 * h * eta / parts))
                y = y + level * math.exp(-(part - 1 - j) * h * eta / parts) * spread * normals[j]
            if part < parts:
                last, _ = model(y, level)
        x = y
    return x


def sa_solver(
    model: Answers,
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    interval: tuple[float, float] = (0.0, 0.0),
    pece: bool = False,
) -> Tensor:
    """Predictor of order 3, corrector of order 4; ``interval`` (high, low) of sigma has noise."""
    levels = [-math.log(s) if s > 0 else math.inf for s in sigmas]
    steps = len(sigmas) - 1
    to_zero = sigmas[-1] == 0

    def weights(nodes: list[float], start: float, end: float, tau: float) -> list[float]:
        # The exponential integrals of Lagrange's polynomials by 40-point Gauss-Legendre.
        at, w = np.polynomial.legendre.leggauss(40)
        lam = (start + end) / 2 + (end - start) / 2 * at
        kernel = (1 + tau**2) * np.exp((1 + tau**2) * (lam - end)) * w * (end - start) / 2
        return [float((kernel * np.prod([(lam - o) / (n - o) for o in nodes if o != n], axis=0)).sum()) for n in nodes]

    answers: list[Tensor] = []
    predicted, added, tau, h = x, 0 * x, 0.0, 0.0
    for i in range(steps):
        clean, _ = model(predicted, sigmas[i])
        answers.append(clean)
        order = 0 if i == 0 or (sigmas[i + 1] == 0 and not pece) else min(4, len(answers))
        order = min(order, steps - i) if to_zero else order
        if order:
            chosen = weights(levels[i - order + 1 : i + 1], levels[i - 1], levels[i], tau)
            x = sigmas[i] / sigmas[i - 1] * math.exp(-(tau**2) * h) * x + added
            x = x + sum(w * a for w, a in zip(chosen, answers[-order:], strict=True))
            if pece:
                answers[-1], _ = model(x, sigmas[i])
        else:
            x = predicted
        if sigmas[i + 1] == 0:
            return answers[-1]
        tau = 1.0 if interval[0] >= sigmas[i + 1] >= interval[1] else 0.0
        order = min(3, len(answers), steps - 1 - i if to_zero else 3)
        h = levels[i + 1] - levels[i]
        chosen = weights(levels[i - order + 1 : i + 1], levels[i], levels[i + 1], tau)
        predicted = sigmas[i + 1] / sigmas[i] * math.exp(-(tau**2) * h) * x
        predicted = predicted + sum(w * a for w, a in zip(chosen, answers[-order:], strict=True))
        added = sigmas[i + 1] * math.sqrt(1 - math.exp(-2 * tau**2 * h)) * noise(x) if tau else 0 * x
        predicted = predicted + added
    return x


# -- odd ones


def kohaku(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Tensor:
    for i, (here, there) in enumerate(pairwise(sigmas)):
        noise(x)

        def slope(y: Tensor, here: float = here) -> Tensor:
            return (y - model(y, here)[0]) / here

        down, up = ancestral(here, there, eta)
        first = slope(x)
        if i <= (len(sigmas) - 1) / 2:
            third = slope(x + (first + slope(-x)) / 2 * (down - here))
            x = x + (first + third) / 2 * (down - here)
            x = x + up * noise(x)
        else:
            x = x + first * (down - here)
    return x


def euler_negative(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    for i, (here, there) in enumerate(pairwise(sigmas)):
        raised = here * math.sqrt(2)
        x = x - here * noise(x)
        x = x + (x - model(x, raised)[0]) / raised * (there - raised)
        x = -x if i in (2, 3) and there > 0 else x
    return x


# -- rectified flow


def flow_down(here: float, there: float, eta: float) -> tuple[float, float, float]:
    down = there * (1 + (there / here - 1) * eta)
    signal = (1 - there) / (1 - down)
    return down, signal, math.sqrt(max(there**2 - (down * signal) ** 2, 0.0))


def euler_ancestral_flow(
    model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0, stretch: float | None = None
) -> Tensor:
    """``stretch``: of the mean of two noises, Euler A2."""
    for here, there in pairwise(sigmas):
        clean, _ = model(x, here)
        if there == 0:
            return clean
        down, signal, fresh = flow_down(here, there, eta)
        x = signal * (clean + down / here * (x - clean))
        x = x + fresh * (noise(x) if stretch is None else stretch * (noise(x) + noise(x)) / 2)
    return x


def dpm_2_ancestral_flow(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, _ = model(x, here)
        down, signal, fresh = flow_down(here, there, eta)
        if down == 0:
            return clean
        middle = math.sqrt(here * down)
        look = x + (x - clean) / here * (middle - here)
        second, _ = model(look, middle)
        x = signal * (x + (look - second) / middle * (down - here)) + fresh * noise(x)
    return x


def dpmpp_2s_flow(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Tensor:
    for here, there in pairwise(sigmas):
        clean, _ = model(x, here)
        if there == 0:
            return clean
        down, signal, fresh = flow_down(here, there, eta)
        odds = math.sqrt((1 - here) / here * (1 - down) / down)
        middle = NEAR_ONE if here == 1 else 1 / (1 + odds)
        second, _ = model(clean + middle / here * (x - clean), middle)
        x = signal * (second + down / here * (x - second)) + fresh * noise(x)
    return x


def lcm(model: Answers, x: Tensor, sigmas: list[float], noise: Noise, flow: bool = False) -> Tensor:
    for here, there in pairwise(sigmas):
        x, _ = model(x, here)
        if there:
            x = (1 - there if flow else 1) * x + there * noise(x)
    return x


def by_half_log_snr(solve: Solve, first: float = NEAR_ONE) -> Solve:
    """A formula in log-sigma as the formula in half-log-SNR of a flow: that of ``x / alpha`` at ``sigma / alpha``.

    A first level of 1 is put at ``first``, where half-log-SNR has a value.
    """

    def solve_flow(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        sigmas = [first if sigmas[0] >= 1 else sigmas[0], *sigmas[1:]]
        ratios = [s / (1 - s) for s in sigmas]

        def scaled(y: Tensor, q: float) -> tuple[Tensor, Tensor]:
            return model(y / (1 + q), q / (1 + q))

        return solve(scaled, x * (1 + ratios[0]), ratios, noise) / (1 + ratios[-1])

    return solve_flow


NOISE_LEVELS: dict[str, Solve] = {
    "Euler CFG++": euler_cfgpp,
    "Euler Ancestral CFG++": euler_ancestral_cfgpp,
    "DPM++ 2S Ancestral CFG++": dpmpp_2s_cfgpp,
    "DPM++ 2M CFG++": dpmpp_2m_cfgpp,
    "DPM++ SDE CFG++": partial(dpmpp_sde, cfgpp=True),
    "DPM++ 2M SDE CFG++": partial(dpmpp_2m_sde, cfgpp=True),
    "DPM++ 3M SDE CFG++": partial(dpmpp_3m_sde, cfgpp=True),
    "RES Solver": res_solver,
    "RES Multistep": res_multistep,
    "RES Multistep CFG++": partial(res_multistep, cfgpp=True),
    "RES Multistep Ancestral": partial(res_multistep, eta=1.0),
    "RES Multistep Ancestral CFG++": partial(res_multistep, eta=1.0, cfgpp=True),
    "Gradient Estimation": gradient_estimation,
    "Gradient Estimation CFG++": partial(gradient_estimation, cfgpp=True),
    "ER SDE": er_sde,
    "SEEDS 2 DP": seeds,
    "SEEDS 3 DP": partial(seeds, parts=3),
    "Kohaku_LoNyu_Yog": kohaku,
    "Euler Negative": euler_negative,
}
"""Solvers by the hosts' labels, on noise levels."""

FLOWS: dict[str, Solve] = {
    "Euler Ancestral CFG++": partial(euler_ancestral_cfgpp, flow=True),
    "Euler A2": partial(euler_ancestral_flow, stretch=1.425),
    "Euler A Comfy RF": euler_ancestral_flow,
    "DPM++ 2S Ancestral Comfy RF": dpmpp_2s_flow,
}
"""Solvers by the hosts' labels that have another formula on a rectified flow."""

BY_SNR = ("ER SDE", "SEEDS 2 DP", "SEEDS 3 DP")
"""Those of NOISE_LEVELS that count in half-log-SNR."""

ON_FLOW: dict[str, Solve] = {
    "sample_euler_ancestral": euler_ancestral_flow,
    "sample_dpm_2_ancestral": dpm_2_ancestral_flow,
    "sample_dpmpp_2s_ancestral": dpmpp_2s_flow,
    "sample_lcm": partial(lcm, flow=True),
    "sample_euler_cfg_pp": partial(euler_ancestral_cfgpp, flow=True, eta=0.0),
}
"""What the hosts' functions become on a rectified flow."""

IN_SNR: dict[str, Solve] = {
    "sample_dpmpp_sde": dpmpp_sde,
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
}
"""The hosts' functions that count in half-log-SNR, on noise levels."""


def sa_for(flow: bool, percent_to_sigma: Callable[[float], float], pece: bool = False) -> Solve:
    """SA-Solver with the noise where the hosts have it."""
    interval = percent_to_sigma(0.2), percent_to_sigma(0.8)
    if not flow:
        return partial(sa_solver, interval=interval, pece=pece)
    ratios = interval[0] / (1 - interval[0]), interval[1] / (1 - interval[1])
    solve = partial(sa_solver, interval=ratios, pece=pece)

    def solve_flow(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        found = by_half_log_snr(solve, percent_to_sigma(1e-4))(model, x, sigmas, noise)
        # Ends one prediction short where the schedule does not go to 0.
        return found if sigmas[-1] == 0 else found / (1 - sigmas[-1]) * (1 - sigmas[-2])

    return solve_flow
