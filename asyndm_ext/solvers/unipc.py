"""UniPC: a predictor and a corrector of any order that share their model calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule
from asyndm_ext.run import Run
from asyndm_ext.settings import SettingsError
from asyndm_ext.solvers.exponential import phis
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver, named

# A pixel takes a lower order where its coefficients are this many times larger than the host's own in this step: it
# hardly moved in its last steps, and their differences are mostly what changed around it.
LARGEST_GAIN = 3.0

# Where the hosts that run it on noise levels end.
_NEARLY_CLEAN = 0.001


def unipc_schedule(arguments: Mapping[str, Any]) -> BaseSchedule:
    """UniPC's own timesteps, fractional, as many steps as the host's list has entries.

    Args:
        arguments: ``timesteps`` and ``is_img2img`` of the host; its settings ``skip_type`` and ``order``; and
            ``alphas_cumprod``.

    Raises:
        SettingsError: fewer steps than the order, or an unknown skip type.
    """
    timesteps, kind = arguments["timesteps"], arguments.get("skip_type", "time_uniform")
    steps, order = len(timesteps), arguments.get("order", 3)
    if steps < order:
        raise SettingsError(f"AsynDM: UniPC order ({order}) must not be above the number of sampling steps ({steps})")
    # Time runs from 1 to 1/1000 and the timestep is 1000 times the time less one. In float32 as the host: a
    # v-prediction model looks its levels up at whole timesteps, and just below one it finds another.
    table = NoiseTable.from_alphas_cumprod(arguments["alphas_cumprod"])
    count = len(table.alphas_cumprod)
    first = float(timesteps[-1] / 1000 + 1 / 1000) if arguments.get("is_img2img") else 1.0
    last = 1 / count
    if kind == "time_uniform":
        time = torch.linspace(first, last, steps + 1, dtype=torch.float32)
    elif kind == "time_quadratic":
        time = torch.linspace(first**0.5, last**0.5, steps + 1, dtype=torch.float32) ** 2
    elif kind == "logSNR":
        high, low = table.half_log_snr(torch.tensor([first * count - 1, 0.0], dtype=torch.float64)).tolist()
        time = ((table.timestep_of(torch.linspace(high, low, steps + 1, dtype=torch.float64)) + 1) / count).float()
    else:
        raise SettingsError(f"AsynDM: there is no UniPC skip type {kind!r}")
    return BaseSchedule(((time - 1 / count) * 1000).double().clamp_min(0), log=False)


def coefficients(nodes: Sequence[Tensor], end: Tensor, variant: str, corrector: bool) -> Tensor:
    """Weights of the differences of the model's answers to the one at ``nodes[0]``, before the factor alpha.

    Args:
        nodes: half-log-SNR of the answers, newest first; as many as the order, but for order 1 of the predictor.
        end: half-log-SNR that the step leads to.
        variant: bh1, bh2 or vary_coeff.
        corrector: also use the answer at ``end``; its weight comes last.

    Returns:
        ``(..., len(nodes) - 1 + corrector)``.
    """
    h = end - nodes[0]
    r = torch.stack([(node - nodes[0]) / h for node in nodes[1:]] + [torch.ones_like(h)] * corrector, dim=-1)
    count = r.shape[-1]
    z = -h[..., None]
    phi = torch.cat(phis(z, count + 1)[1:], dim=-1)
    if variant == "vary_coeff":
        powers = torch.stack([r**k / math.factorial(k + 1) for k in range(count)], dim=-1)
        rows = torch.linalg.inv_ex(powers).inverse
        if corrector:
            # In the host's code, as in the authors', the new answer has one term only, from the row before the last.
            newest = rows[..., max(count - 2, 0), -1].clone()
            rows[..., -1], rows[..., -1, :] = 0.0, 0.0
            rows[..., -1, -1] = newest
        return (phi[..., 1:, None] * rows).sum(dim=-2) * z / r
    scale = z if variant == "bh1" else torch.expm1(z)
    simple = torch.full_like(r, 0.5) / r
    if count == 1:  # where one answer is all there is, the authors take half of it
        return scale * simple
    factorials = torch.tensor([float(math.factorial(k + 1)) for k in range(count)], dtype=r.dtype)
    b = phi[..., 1:] * factorials / (1 if variant == "bh1" else phi[..., :1])
    vandermonde = torch.stack([r**k for k in range(count)], dim=-2)
    return scale * torch.linalg.solve_ex(vandermonde, b[..., None]).result[..., 0] / r


def bounded(nodes: Sequence[Tensor], end: Tensor, host: Sequence[Tensor], variant: str, corrector: bool) -> Tensor:
    """:func:`coefficients` per pixel, of the highest order whose size is not far from that of the host's own step.

    Args:
        nodes, end: maps. host: the same of the host itself, newest first, ``end`` at the front; scalars.
    """
    # The host goes along as one more pixel.
    last, *lam = (torch.cat([m.flatten(), h.view(1)]) for m, h in zip([end, *nodes], host, strict=True))
    chosen = torch.zeros(len(last), len(nodes) - 1 + corrector, dtype=end.dtype)
    if corrector:
        chosen[:, -1:] = coefficients(lam[:1], last, variant, corrector)
    for order in range(2, len(nodes) + 1):
        found = coefficients(lam[:order], last, variant, corrector)
        size = found.abs().sum(dim=-1, keepdim=True)
        padded = torch.zeros_like(chosen)
        padded[:, : order - 1] = found[:, : order - 1]
        if corrector:
            padded[:, -1] = found[:, -1]
        chosen = torch.where(size <= LARGEST_GAIN * size[-1], padded, chosen)  # false for NaN
    return chosen[:-1].view(*end.shape, -1)


@torch.no_grad()
def sample_unipc(run: Run, x: Tensor, variant: str = "bh1", order: int = 3, lower_order_final: bool = True) -> Tensor:
    """Zhao et al. (2023), data prediction; every pixel has its own steps in half-log-SNR."""
    return _multistep(
        run, x, variant, order, lower_order_final, run.host.noise_table.half_log_snr, _preserving, clean, None
    )


@torch.no_grad()
def sample_unipc_levels(run: Run, x: Tensor, variant: str = "bh1", order: int = 3) -> Tensor:
    """The same on the host's noise levels, where the signal stays as it is.

    The hosts call their model with the very numbers of their list: what another extension writes into them stays there,
    and the steps go on from it.
    """
    order = min(order, run.count - 1)
    if order < 1:
        return run.model(x)
    return _multistep(
        run, x, variant, order, True, _snr_of_level, _exploding, lambda x, answer, *_: answer, run.changed
    )


def unipc_levels(arguments: Mapping[str, Any]) -> BaseSchedule:
    """The host's list of sigmas, whose 0 at the end is as good as 0 only: half-log-SNR has no value there."""
    base = BaseSchedule.from_sigmas(arguments["sigmas"])
    return base if base.final is None else replace(base, final=_NEARLY_CLEAN)


def _snr_of_level(sigma: Tensor) -> Tensor:
    return -sigma.log()


def _preserving(half_log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise in a latent of unit variance."""
    return torch.sigmoid(2 * half_log_snr).sqrt(), torch.sigmoid(-2 * half_log_snr).sqrt()


def _exploding(half_log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The same where the noise is added to the signal."""
    return torch.ones_like(half_log_snr), torch.exp(-half_log_snr)


def _multistep(
    run: Run,
    x: Tensor,
    variant: str,
    order: int,
    lower_order_final: bool,
    snr: Callable[[Tensor], Tensor],
    scales: Callable[[Tensor], tuple[Tensor, Tensor]],
    picture: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    changed: Callable[[], Tensor | None] | None,
) -> Tensor:
    """Args: half-log-SNR of levels; signal and noise of half-log-SNR; the picture of a latent and the model's answer to
    it, where there is so much signal and noise; by which factor others have changed the last call's levels, if the host
    goes on from what they have made of them."""
    history: list[tuple[Tensor, Tensor, Tensor]] = []  # (a pixel's half-log-SNR, the host's, clean), newest first

    for i in run.steps():
        if not history:
            here, host = snr(run.exact), snr(torch.tensor(run.nominal(i), dtype=torch.float64))
            answer = picture(x, run.model(x), *run.maps.all_on_device(*scales(here)))
            factor = changed() if changed is not None else None
            if factor is not None:
                here, host, grown = _as_changed(run, factor, here, host)
                x, answer = grown * x, answer + (grown - 1) * x
            history = [(here, host, answer)]
        here, _, newest = history[0]
        run.move()
        end = snr(run.exact)
        host_end = snr(torch.tensor(run.nominal(i + 1), dtype=torch.float64))
        used = min(order, run.count - i) if lower_order_final and i + 1 >= order else min(order, i + 1)
        nodes, hosts = [n for n, _, _ in history[:used]], [host_end, *(n for _, n, _ in history[:used])]
        alpha, sigma = scales(end)
        differences = [answer - newest for _, _, answer in history[1:used]]
        predictor, corrector = (
            [alpha * w for w in bounded(nodes, end, hosts, variant, corrects).unbind(-1)] for corrects in (False, True)
        )
        maps = [sigma / scales(here)[1], alpha * torch.expm1(here - end), alpha, sigma, *predictor, *corrector]
        kept, fresh, signal, noise, *weights = run.maps.all_on_device(*maps)
        start = kept * x - fresh * newest

        def step(weights: Sequence[Tensor]) -> Tensor:
            return start - sum(w * d for w, d in zip(weights, differences, strict=True))  # noqa: B023

        x = step(weights[: len(predictor)])
        if i + 1 < run.count:
            answer = picture(x, run.model(x), signal, noise)
            factor = changed() if changed is not None else None
            if factor is not None:
                end, host_end, grown = _as_changed(run, factor, end, host_end)
                answer = answer + (grown - 1) * x
            differences.append(answer - newest)
            x = step(weights[len(predictor) :])
            if factor is not None:
                x = grown * x
            history = [(end, host_end, answer), *history[: order - 1]]
        run.report(i, x, history[0][2])
    return x


def _as_changed(run: Run, factor: Tensor, here: Tensor, host: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a call's pixels and the host's own step are after others have changed its levels by a factor ``(B,1,1,1)``.

    And how much the latent has grown: the host keeps it in unit variance, so where the noise is another, the latent is.
    """
    there = here - factor.log()
    grown = (torch.sigmoid(2 * here) / torch.sigmoid(2 * there)).sqrt()
    return there, host - factor.log().mean(), run.maps.on_device(grown)


def clean(x: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """The picture of ``x`` by the model's answer."""
    return (x - noise * eps) / signal


REGISTERED = (
    Row(
        Solver(
            sample_unipc,
            "timestep",
            ("variant", "order", "lower_order_final"),
            own_schedule=unipc_schedule,
            settings=named("uni_pc", "variant", "order", "lower_order_final", "skip_type"),
        ),
        labels=("UniPC",),
        functions=("unipc",),
    ),
    Row(
        Solver(sample_unipc_levels, "sigma", ("variant",), own_schedule=unipc_levels, never_flow=True),
        functions=("sample_unipc",),
        levels=("sample_unipc",),
    ),
)
