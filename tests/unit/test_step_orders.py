"""Multistep solvers under any history of levels: every step of every pixel is the host's own step on that pixel's last
levels, of the order that the rule for long steps leaves it.

The rule, once more and in its own words (``orders``): a term of the formula that looks ``back`` steps into the past is
used where the step is shorter than a multiple of the pixel's own step then. The multiple is 10 for a slope and 3 for
whatever is built on it, or what the host's own two steps have, whichever is larger.

The network's answers are given beforehand, so a step is a sum of known things, and its weights can be held against
those of the host's function on as many levels as the order asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from support.host_formulas import NOISE_LEVELS, Answers, Noise, Solve, ancestral, dpmpp_3m_sde, res_multistep
from support.kdiffusion import k_diffusion
from support.solvers import close, randn
from test_restated_solvers import adams, deis_weights, even_weights, uneven_weights
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.solvers.multistep import _BETA_D, _BETA_MIN, vp_time

STEPS, PIXELS = 9, 40
SLOPE, BEND = 10.0, 3.0
# What a step may be as a multiple of one before: on both sides of every limit, of the 1 % that a host's own long step
# has to spare, and ordinary ones.
MULTIPLES = (0.3, 0.8, 1.0, 1.0, 1.3, 2.96, 3.04, 9.9, 10.1, 25.0)
OF_THE_HOSTS = (0.98, 1.005, 1.015)
# Even; two long steps, each after short ones, far from each other; a short one between long ones.
HOSTS = {
    "even": [1.0] * STEPS,
    "rises to the end": [0.05, 0.02, 0.02, 0.025, 0.03, 0.6, 0.8, 1.0, 1.0],
    "one long step": [0.05, 0.06, 0.05, 1.0, 1.0, 0.9, 0.8, 0.8, 0.7],
    "one short step": [1.0, 0.8, 0.7, 0.05, 0.9, 1.0, 0.06, 0.6, 0.9],
    "one long step among short ones": [0.2, 0.05, 0.05, 0.9, 0.04, 0.04, 0.7, 0.02, 0.5],
}


@dataclass(frozen=True)
class Rule:
    """What a solver's steps are measured in, how many terms it has beside the first, and the host's formula.

    Attributes:
        low, high: ends of the schedule in sigma; they need a wide range where steps differ a hundredfold.
        slopes: it keeps ``(x - denoised) / sigma``, not denoised; ``unguided``: with the unguided answer.
        own_start: the host's first step has a formula of its own, so a later one of first order is that of second
            order with the same answer twice.
        options: of our solver.
        length: of a step, if not on the axis.
    """

    reference: Solve
    limits: tuple[float, ...] = (SLOPE,)
    axis: Callable[[float], float] = math.log
    level: Callable[[float], float] = math.exp
    low: float = 0.05
    high: float = 12.0
    slopes: bool = False
    unguided: bool = False
    own_start: bool = False
    options: dict[str, float] = field(default_factory=dict)
    length: Callable[[float, float], float] | None = None


def k_diffusions(function: str, **options) -> Solve:
    def solve(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        sampling, _ = k_diffusion()
        if function.endswith("sde"):
            options["noise_sampler"] = lambda *_: torch.zeros_like(x)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return model(x, float(sigma[0]))[0]

        levels = torch.tensor(sigmas, dtype=torch.float64)
        return getattr(sampling, function)(denoise, x, levels, disable=True, **options)

    return solve


def restated(solve: Callable) -> Solve:
    """For the formulas that call ``model.denoised`` with a tensor."""

    def solve_for(model: Answers, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        class Denoiser:
            def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
                return model(x, float(sigma))[0]

        return solve(Denoiser(), x, sigmas, noise)

    return solve_for


def vp(sigma: float) -> float:
    return float(vp_time(torch.tensor(sigma, dtype=torch.float64)))


def level_of_vp_time(t: float) -> float:
    return math.sqrt(math.expm1(_BETA_D * t * t / 2 + _BETA_MIN * t))


def to_down(here: float, there: float) -> float:
    return math.log(here / ancestral(here, there, 1.0)[0])


IN_SIGMA = {"axis": float, "level": float, "low": 0.02, "high": 10.0}
NO_LIMIT = (math.inf,)
RULES = {
    "DPM++ 2M": Rule(k_diffusions("sample_dpmpp_2m")),
    "DPM++ 2M SDE": Rule(k_diffusions("sample_dpmpp_2m_sde", eta=0.0), options={"eta": 0.0}),
    "DPM++ 2M SDE Heun": Rule(
        k_diffusions("sample_dpmpp_2m_sde", eta=0.7, solver_type="heun"), options={"eta": 0.7, "s_noise": 0.0}
    ),
    "DPM++ 3M SDE": Rule(k_diffusions("sample_dpmpp_3m_sde", eta=0.0), (SLOPE, BEND), options={"eta": 0.0}),
    "DPM++ 2M CFG++": Rule(NOISE_LEVELS["DPM++ 2M CFG++"], (BEND,)),
    "DPM++ 3M SDE CFG++": Rule(partial(dpmpp_3m_sde, cfgpp=True), (SLOPE, BEND), options={"s_noise": 0.0}),
    "RES Multistep": Rule(NOISE_LEVELS["RES Multistep"]),
    "RES Multistep CFG++": Rule(NOISE_LEVELS["RES Multistep CFG++"], own_start=True),
    "RES Multistep Ancestral": Rule(partial(res_multistep, eta=1.0), length=to_down, options={"s_noise": 0.0}),
    "LMS": Rule(k_diffusions("sample_lms"), (SLOPE, BEND, BEND), slopes=True, **IN_SIGMA),
    "DEIS": Rule(
        restated(adams(deis_weights, 3)),
        (SLOPE, BEND),
        axis=vp,
        level=level_of_vp_time,
        low=0.05,
        high=20.0,
        slopes=True,
        own_start=True,
    ),
    "IPNDM": Rule(restated(adams(even_weights, 4)), NO_LIMIT * 3, slopes=True, **IN_SIGMA),
    "IPNDM_V": Rule(restated(adams(uneven_weights, 4)), (SLOPE, BEND, BEND), slopes=True, **IN_SIGMA),
    "ER SDE": Rule(NOISE_LEVELS["ER SDE"], (SLOPE, BEND), options={"s_noise": 0.0}, **IN_SIGMA),
    "Gradient Estimation": Rule(NOISE_LEVELS["Gradient Estimation"], NO_LIMIT, slopes=True),
    "Gradient Estimation CFG++": Rule(NOISE_LEVELS["Gradient Estimation CFG++"], NO_LIMIT, slopes=True, unguided=True),
}


# -- levels of which the steps are what the test wants


def own_lengths(host: Sequence[float], generator: np.random.Generator) -> list[float]:
    """Steps of a pixel: each a multiple of one of the last three, on one side or the other of a limit."""
    steps = [float(generator.uniform(0.1, 1.0))]
    for i in range(1, len(host)):
        for _ in range(50):
            back = int(generator.integers(1, min(i, 3) + 1))
            multiples = [*MULTIPLES, *(share * host[i] / host[i - back] for share in OF_THE_HOSTS * 3)]
            step = steps[i - back] * float(generator.choice(multiples))
            if 2e-3 < step < 2:
                break
        else:
            step = 0.3
        steps.append(step)
    if generator.random() < 0.2:
        steps[int(generator.integers(0, len(steps)))] = 0.0  # it stands still once
    return steps


def levels_of(steps: Sequence[float], rule: Rule) -> list[float]:
    low, high = rule.axis(rule.low), rule.axis(rule.high)
    passed = np.concatenate([[0.0], np.cumsum(steps)])
    return [rule.level(high - (high - low) * float(share)) for share in passed / passed[-1]]


class Given(PixelSchedule):
    """Each pixel's levels are given; the host's are the nodes."""

    def __init__(self, nodes: Sequence[float], levels: Tensor) -> None:
        self.levels = levels
        super().__init__(BaseSchedule(torch.tensor(nodes, dtype=torch.float64)), (1, 1, 1, levels.shape[-1]), "linear")
        self.level = levels[0]

    def _tick(self, strength: Tensor) -> Tensor:
        super()._tick(strength)
        self.level = self.levels[self._updates_done]
        return self.level


class Script:
    """A network whose answers, with and without prompt, are known beforehand."""

    def __init__(self, calls: int) -> None:
        self.answers = [
            (randn(1, 2, 1, PIXELS, seed=2 * k), randn(1, 2, 1, PIXELS, seed=2 * k + 1)) for k in range(calls)
        ]
        self.seen: list[Tensor] = []
        self.last_uncond: Tensor | None = None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        denoised, self.last_uncond = self.answers[len(self.seen)]
        self.seen.append(x)
        return denoised

    def attention(self) -> None:
        return None


def sampled(name: str, host: list[float], levels: Tensor, **options) -> tuple[Script, list[Tensor]]:
    """The script and the latents before the first step, between steps and after the last."""
    script, x = Script(STEPS), randn(1, 2, 1, PIXELS, seed=99)
    run = Run(
        script,
        Given(host, levels),
        FixedRegion.everything((1, 1, 1, PIXELS), 0.0),
        x,
        FromHost(randn_like=torch.zeros_like, percent_to_sigma=lambda _: 99.0),
    )
    end = SOLVERS[name].sample(run, x, **options)
    return script, [*script.seen, end]


def pixels_and_host(rule: Rule, host: str) -> tuple[list[float], list[list[float]], Tensor]:
    generator = np.random.default_rng(sorted(HOSTS).index(host))
    nodes = levels_of(HOSTS[host], rule)
    own = [levels_of(own_lengths(HOSTS[host], generator), rule) for _ in range(PIXELS)]
    return nodes, own, torch.tensor(own, dtype=torch.float64).T.reshape(STEPS + 1, 1, 1, 1, PIXELS)


# -- the rule


def lengths(levels: Sequence[float], rule: Rule) -> list[float]:
    length = rule.length or (lambda here, there: abs(rule.axis(here) - rule.axis(there)))
    return [length(levels[i], levels[i + 1]) if levels[i] > levels[i + 1] else 0.0 for i in range(len(levels) - 1)]


def order_of(own: Sequence[float], host: Sequence[float], i: int, limits: Sequence[float]) -> int:
    """The order of the step ``i`` of a pixel, from its own and the host's steps."""
    order = 1
    for term, limit in enumerate(limits[:i], start=1):
        if limit < math.inf and not all(
            own[i] < max(limit, 1.01 * host[i] / host[i - back]) * own[i - back] for back in range(1, term + 1)
        ):
            break
        order = term + 1
    return order


@dataclass(frozen=True)
class Answer:
    """What the network has said at one of a pixel's levels, and the slopes that follow from it."""

    denoised: Tensor
    unguided: Tensor
    slope: Tensor
    slope_unguided: Tensor


def hosts_step(rule: Rule, sigmas: list[float], x: Tensor, answers: list[Answer]) -> Tensor:
    """Where the last step of the host's function on ``sigmas`` leads from ``x``, with these answers."""

    def once(start: float) -> tuple[Tensor, Tensor]:
        last: list[Tensor] = []

        def model(y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            answer = answers[len(last)]
            last.append(y)
            if not rule.slopes:
                return answer.denoised, answer.unguided
            # Whatever the latent is here, the slope is the one that ours had there.
            unguided = y - sigma * answer.slope_unguided
            return (answer.denoised if rule.unguided else y - sigma * answer.slope), unguided

        end = rule.reference(model, torch.full_like(x, start), sigmas, torch.zeros_like)
        return last[len(sigmas) - 2], end

    # The function is affine in its start, of which CFG++ may keep nothing.
    (before, after), (before_1, after_1) = once(0.0), once(1.0)
    share = torch.where((before_1 - before).abs() < 1e-10, 0.0, (after_1 - after) / (before_1 - before))
    return after + share * (x - before)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", RULES)
def test_each_step_is_the_hosts_of_the_order_that_the_rule_leaves(name: str, host: str) -> None:
    rule = RULES[name]
    nodes, own, levels = pixels_and_host(rule, host)
    script, latents = sampled(name, nodes, levels, **rule.options)
    steps_host, orders = lengths(nodes, rule), set()
    for pixel in range(10 if name == "DEIS" else PIXELS):  # DEIS' weights are slow to come by
        here = [latent[..., pixel] for latent in latents]
        answers = []
        for x, (denoised, unguided), sigma in zip(here, script.answers, own[pixel], strict=False):
            pair = denoised[..., pixel], unguided[..., pixel]
            answers.append(Answer(*pair, *((x - answer) / sigma for answer in pair)))
        steps = lengths(own[pixel], rule)
        for i in range(STEPS):
            order = order_of(steps, steps_host, i, rule.limits)
            if steps[i] == 0 or (0.0 in steps and rule.limits[0] == math.inf):
                continue  # the next test's
            first = i + 1 - order
            sigmas, said = own[pixel][first : i + 2], answers[first : i + 1]
            if rule.own_start and order == 1 and i > 0:
                sigmas, said = [1.2 * sigmas[0], *sigmas], said * 2
            expected = hosts_step(rule, sigmas, here[i], said)
            if name == "IPNDM_V" and i >= 3:
                expected = expected + surplus(own[pixel], nodes, i, order) * answers[i - 3].slope
            error = float((here[i + 1] - expected).abs().max())
            scale = max(1.0, float(here[i].abs().max()), float(expected.abs().max()))
            assert error < 1e-7 * scale, f"pixel {pixel}, step {i}, order {order}: {error:.1e}"
            orders.add(order)
    assert orders == set(range(1, len(rule.limits) + 2)), "every order is met"


def surplus(own: list[float], host: list[float], i: int, order: int) -> float:
    """The host's fourth-order weights do not add up to the step. Every pixel gets the surplus of the host's own steps,
    and none of its own."""

    def of(levels: list[float]) -> float:
        past = levels[: i + 1][::-1][:4]
        return sum(uneven_weights(past, levels[i + 1])) / (levels[i + 1] - levels[i]) - 1

    return (of(host) - (of(own) if order == 4 else 0.0)) * (own[i + 1] - own[i])


@pytest.mark.parametrize("name", [name for name in RULES if "CFG++" not in name])
def test_a_step_of_no_length_changes_nothing_and_is_no_history(name: str) -> None:
    rule = RULES[name]
    nodes, own, levels = pixels_and_host(rule, "even")
    _, latents = sampled(name, nodes, levels, **rule.options)
    still = [(p, i) for p in range(PIXELS) for i in range(STEPS) if own[p][i] == own[p][i + 1]]
    assert len(still) > 3
    for pixel, i in still:
        close(latents[i + 1][..., pixel], latents[i][..., pixel], 1e-13)
    assert all(bool(latent.isfinite().all()) for latent in latents)


# -- SA-Solver, whose predictor and corrector are told apart by giving the other the first order


def sa_weights(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals of ``exp(lam - end)`` times Lagrange's polynomials, by 40-point Gauss-Legendre."""
    at, w = np.polynomial.legendre.leggauss(40)
    lam = (start + end) / 2 + (end - start) / 2 * at
    kernel = np.exp(lam - end) * w * (end - start) / 2
    return [float((kernel * np.prod([(lam - o) / (n - o) for o in nodes if o != n], axis=0)).sum()) for n in nodes]


def sa_corrector_order(own: Sequence[float], host: Sequence[float], i: int) -> int:
    """Of the correction of step ``i``: its first slope is that over the step itself, and never too long."""
    if own[i] == 0:
        return 1
    order = 2
    for back in range(1, min(i, 2) + 1):
        if not own[i] < max(BEND, 1.01 * host[i] / host[i - back]) * own[i - back]:
            break
        order += 1
    return order


SA = Rule(NOISE_LEVELS["ER SDE"])  # its axis only


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("part", ["predictor", "corrector"])
def test_sa_solvers_parts_have_the_order_that_the_rule_leaves(part: str, host: str) -> None:
    nodes, own, levels = pixels_and_host(SA, host)
    other = {"predictor": "corrector", "corrector": "predictor"}[part]
    script, _ = sampled("SA-Solver", nodes, levels, **{f"{other}_order": 1})
    steps_host, orders = lengths(nodes, SA), set()
    for pixel in range(PIXELS):
        seen = [latent[..., pixel] for latent in script.seen]
        answers = [a[..., pixel] for a, _ in script.answers]
        lam, steps = [-math.log(sigma) for sigma in own[pixel]], lengths(own[pixel], SA)
        corrected = seen[0]
        for i in range(STEPS - 1):
            # From the corrected latent of step i to the prediction at i + 1, which is corrected by its answer.
            decay = own[pixel][i + 1] / own[pixel][i]
            if part == "predictor":
                order = order_of(steps, steps_host, i, (SLOPE, BEND))
                past, start = range(i, i - order, -1), corrected
                corrected = decay * corrected + (1 - decay) * answers[i + 1]
                found = seen[i + 1]
            else:
                order = sa_corrector_order(steps, steps_host, i)
                past, start = range(i + 1, i + 1 - order, -1), corrected
                if i + 2 >= STEPS:
                    continue
                onward = own[pixel][i + 2] / own[pixel][i + 1]
                corrected = found = (seen[i + 2] - (1 - onward) * answers[i + 1]) / onward
            if steps[i] == 0:
                continue
            weights = sa_weights([lam[k] for k in past], lam[i], lam[i + 1])
            expected = decay * start + sum(w * answers[k] for w, k in zip(weights, past, strict=True))
            error = float((found - expected).abs().max())
            assert error < 1e-7 * max(1.0, float(expected.abs().max())), (
                f"pixel {pixel}, step {i}, order {order}: {error}"
            )
            orders.add(order)
    assert orders >= ({1, 2, 3} if part == "predictor" else {2, 3, 4})
