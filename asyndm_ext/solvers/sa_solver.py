"""SA-Solver (Xue et al. 2023): a stochastic Adams predictor with a corrector, in half-log-SNR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.exponential import phis
from asyndm_ext.solvers.half_log_snr import in_snr
from asyndm_ext.solvers.helpers import LARGEST_RATIO_BEND, largest_ratio
from asyndm_ext.solvers.multistep import usable_terms
from asyndm_ext.solvers.registry import Row


def half_log_snr(sigma: Tensor) -> Tensor:
    return -sigma.log()


def adams_weights(at: Sequence[Tensor], start: Tensor, h: Tensor, mu: float, usable: Iterator[Tensor]) -> list[Tensor]:
    """Weights of the answers at ``at`` (newest first) in a step of length ``h`` from ``start``, per pixel.

    They integrate ``mu * exp(-mu * (h - y))`` times Newton's polynomial over y from 0 to h (Eq. 15 and 18 of the
    paper, with ``mu = 1 + tau^2``).

    Args:
        usable: for term 1, 2, ...: the pixels that can have it.
    """
    z = mu * h
    moments = [z * h**k * math.factorial(k) * phi for k, phi in enumerate(phis(-z, len(at))[1:])]
    places = [place - start for place in at]
    weights = [moments[0], *(torch.zeros_like(h) for _ in at[1:])]
    basis = [torch.ones_like(h)]  # coefficients of the product of (y - place), constant first
    for k, mask in enumerate(usable, start=1):
        shifted, scaled = [torch.zeros_like(h), *basis], [*(-places[k - 1] * c for c in basis), torch.zeros_like(h)]
        basis = [a + b for a, b in zip(shifted, scaled, strict=True)]
        integral = torch.stack([c * moment for c, moment in zip(basis, moments, strict=False)]).sum(dim=0)
        for j in range(k + 1):
            others = [places[j] - places[m] for m in range(k + 1) if m != j]
            weights[j] = weights[j] + torch.where(mask, integral / torch.stack(others).prod(dim=0), 0.0)
    return weights


def corrector_terms(run: Run, i: int, at: Sequence[Tensor]) -> Iterator[Tensor]:
    """For term 1, 2, ... of the corrector of the step that led to ``at[0]``: the pixels that can have it, bool."""
    usable = at[0] > at[1] if len(at) > 1 else torch.ones_like(at[0], dtype=torch.bool)
    for k in range(1, len(at)):
        if k > 1:
            limit = largest_ratio(run, i - 1, k - 1, LARGEST_RATIO_BEND)
            usable = usable & (at[0] - at[1] < limit * (at[k - 1] - at[k]))
        yield usable


@torch.no_grad()
def sample_sa_solver(
    run: Run, x: Tensor, s_noise: float = 1.0, predictor_order: int = 3, corrector_order: int = 4, pece: bool = False
) -> Tensor:
    """Predict, evaluate, correct (and evaluate again with ``pece``); the orders are lower at both ends.

    Noise is added where the host is between 20 and 80 % of its way (in percent_to_sigma); that is decided on the
    nominal sigma.
    """
    answers: list[Tensor] = []
    at: list[Tensor] = []
    kept = max(predictor_order, corrector_order)
    predicted, noise, mu, h = x, torch.zeros_like(x), 1.0, torch.zeros(())
    to_zero = run.nominal(run.count) == 0
    for i in run.steps():
        remaining, is_last = run.count - i, run.nominal(i + 1) == 0
        denoised = run.model(predicted)
        run.report(i, predicted, denoised)
        answers, at = [denoised, *answers][:kept], [half_log_snr(run.exact), *at][:kept]

        order = 0 if i == 0 or (is_last and not pece) else min(corrector_order, len(answers))
        order = min(order, remaining) if to_zero else order
        if order:
            terms = corrector_terms(run, i, at[:order])
            x = stepped(run, x, mu * h, adams_weights(at[:order], at[0] - h, h, mu, terms), answers)[0] + noise
            if pece:
                answers[0] = denoised = run.model(x)
        else:
            x = predicted

        if i + 1 == run.count and not to_zero:
            return x  # so does the host, one prediction short of the schedule's end
        run.move()
        if is_last:
            return denoised
        order = min(predictor_order, len(answers))
        order = min(order, remaining - 1) if to_zero else order
        tau = 1.0 if run.host.sigma_at(0.2) >= run.nominal(i + 1) >= run.host.sigma_at(0.8) else 0.0
        end = half_log_snr(run.exact)
        mu, h = 1 + tau**2, end - at[0]
        terms = usable_terms(run, i, at[:order], end, half_log_snr)
        share = (-torch.expm1(-2 * tau**2 * h)).clamp_min(0).sqrt()
        weights = adams_weights(at[:order], at[0], h, mu, terms)
        predicted, added = stepped(run, x, mu * h, weights, answers, run.exact * share)
        noise = torch.zeros_like(x)
        if tau > 0 and s_noise > 0:
            noise = added * s_noise * run.randn_like(x)
        predicted = predicted + noise
    return x


def stepped(
    run: Run, x: Tensor, z: Tensor, weights: Sequence[Tensor], answers: Sequence[Tensor], *more: Tensor
) -> list[Tensor]:
    """``exp(-z) * x`` and the sum of the answers (newest first) by their weights; then the other maps, beside it."""
    decay, *sent = run.maps.all_on_device(torch.exp(-z), *weights, *more)
    weighted = (w * d for w, d in zip(sent[: len(weights)], answers, strict=False))
    return [decay * x + sum(weighted, torch.zeros_like(answers[0])), *sent[len(weights) :]]


_OPTIONS = ("s_noise", "predictor_order", "corrector_order")

REGISTERED = (
    Row(in_snr(sample_sa_solver, *_OPTIONS), labels=("SA-Solver",), functions=("sample_sa_solver",)),
    Row(
        in_snr(partial(sample_sa_solver, pece=True), *_OPTIONS),
        labels=("SA-Solver-Pece",),
        functions=("sample_sa_solver_pece",),
    ),
)
