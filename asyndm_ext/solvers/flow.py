"""Rectified flow: sigma from 1 to 0, ``x = (1 - sigma) * clean + sigma * noise``, denoised ``x - sigma * v``.

The probability flow is the same equation as on noise levels, ``dx/dsigma = (x - denoised) / sigma``, so solvers without
noise of their own run unchanged. What differs is fresh noise: here it also takes signal away. There are three kinds:

- hosts that run the formulas for noise levels anyway (A1111's SD3): nothing to do;
- ancestral solvers with a form for flows (``RF``): below;
- solvers that count in half-log-SNR: :class:`AsNoiseLevels`, a change of variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.schedule import BaseSchedule
from asyndm_ext.solvers.helpers import midway, to_d, toward
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import ANCESTRAL, Solver, named

# The level at which DPM++ 2S a looks from a start at sigma 1, where half-log-SNR has no value; the host's.
_NEAR_ONE = 0.9999


def downstep(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """An ancestral step of a flow: ``(sigma_down, signal, fresh)``.

    Down to ``sigma_down``, then ``signal`` times the latent and ``fresh`` times noise bring it to ``sigma_next`` with
    the signal that belongs there. A pixel that stands still gets ``(sigma, 1, 0)``, even at sigma 1, without signal.
    """
    sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    alpha_down = 1 - sigma_down
    signal = torch.where(alpha_down > 0, (1 - sigma_next) / torch.where(alpha_down > 0, alpha_down, 1.0), 1.0)
    fresh = (sigma_next**2 - sigma_down**2 * signal**2).clamp_min(0).sqrt()
    return sigma_down, signal, fresh


@torch.no_grad()
def sample_euler_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler a for flows."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        x = toward(x, denoised, sigma, sigma_down)
        if eta > 0:
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


@torch.no_grad()
def sample_euler_a2(
    run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0, extrapolation: float = 0.425
) -> Tensor:
    """Euler a for flows with the mean of two noises, stretched: to sqrt(2) times it would be one noise."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        if run.nominal(i + 1) == 0:
            x = denoised
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        x = toward(x, denoised, sigma, sigma_down)
        if eta > 0 and s_noise != 0:
            noise = (run.randn_like(x) + run.randn_like(x)) / 2
            x = signal * x + (1 + extrapolation) * noise * s_noise * fresh
    return x


@torch.no_grad()
def sample_dpm_2_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM2 a for flows."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        nominal_down, _, _ = downstep(run.scalar(i), run.scalar(i + 1), eta)
        d = to_d(x, sigma, denoised)
        if nominal_down == 0:
            x = x + d * (sigma_down - sigma)
        else:
            sigma_mid = run.between(lambda here, there: midway(here, downstep(here, there, eta)[0]), sigma, sigma_next)
            x_2 = x + d * (sigma_mid - sigma)
            denoised_2 = run.model_at(x_2, midway(run.scalar(i), nominal_down), sigma_mid)
            x = x + to_d(x_2, sigma_mid, denoised_2) * (sigma_down - sigma)
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


@torch.no_grad()
def sample_dpmpp_2s_ancestral_flow(run: Run, x: Tensor, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM++ 2S a for flows: the second look is halfway in half-log-SNR."""
    for i in run.steps():
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        if run.nominal(i + 1) == 0:
            x = toward(x, denoised, sigma, sigma_next)
            continue
        sigma_down, signal, fresh = downstep(sigma, sigma_next, eta)
        nominal_down, _, _ = downstep(run.scalar(i), run.scalar(i + 1), eta)
        sigma_mid = run.between(
            lambda here, there: halfway_in_snr(here, downstep(here, there, eta)[0]), sigma, sigma_next
        )
        x_2 = toward(x, denoised, sigma, sigma_mid)
        denoised_2 = run.model_at(x_2, halfway_in_snr(run.scalar(i), nominal_down), sigma_mid)
        x = toward(x, denoised_2, sigma, sigma_down)
        if eta > 0:
            x = signal * x + run.randn_like(x) * s_noise * fresh
    return x


def halfway_in_snr(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Halfway in half-log-SNR of a flow, where there is one; just below sigma 1 for a pixel that starts there."""
    middle = torch.sigmoid((torch.logit(sigma) + torch.logit(sigma_next)) / 2)
    middle = torch.where(sigma >= 1, _NEAR_ONE, middle)
    return torch.where(sigma_next > 0, middle, sigma)


@torch.no_grad()
def sample_lcm_flow(run: Run, x: Tensor) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023) of a flow."""
    for i in run.steps():
        denoised = run.model(x)
        run.report(i, x, denoised)
        sigma_next = run.advance()
        x = denoised
        if run.nominal(i + 1) > 0:
            x = (1 - sigma_next) * x + sigma_next * run.randn_like(x)
    return x


# -- by a change of variables


class AsNoiseLevels(Run):
    """A run of a flow in the variables of noise levels: ``x / (1 - sigma)`` is ``clean + q * noise``, with
    ``q = sigma / (1 - sigma)``.

    Half-log-SNR is ``-log q``, so what a solver for noise levels computes here is its form in half-log-SNR for the
    flow. Levels, latents and intervals are translated on their way to the host and back.
    """

    def __init__(self, run: Run) -> None:
        self.__dict__.update(run.__dict__)
        self.flow = False
        self._translated: tuple[Tensor, Tensor] | None = None
        # The host's levels to the last bit: a Brownian tree answers to that.
        self._host = {float(self.scalar(i)): run.scalar(i) for i in range(run.count + 1)}
        self.noise_sampler = lambda q, q_next: run.noise_sampler(self.host_level(q), self.host_level(q_next))

    def host_level(self, q: Tensor) -> Tensor:
        """The host's sigma for a nominal level in these variables."""
        return self._host.get(float(q), sigma_of(q))

    def middle(self, nominal: Tensor, nominal_next: Tensor, share: float) -> Tensor:
        t, t_next = (torch.logit(self.host_level(q)) for q in (nominal, nominal_next))
        sigma = torch.sigmoid(t + (t_next - t) * share)
        q = noise_per_signal(sigma.double()).to(sigma.dtype)
        self._host[float(q)] = sigma
        return q

    def nominal(self, step: int) -> float:
        return float(noise_per_signal(torch.tensor(super().nominal(step), dtype=torch.float64)))

    @property
    def level(self) -> Tensor:
        return self.on_device(self.exact)

    @property
    def exact(self) -> Tensor:
        level = super().exact
        if self._translated is None or self._translated[0] is not level:
            self._translated = level, noise_per_signal(level)
        return self._translated[1]

    def model(self, x: Tensor) -> Tensor:
        host = self.schedule
        return super().model_at(self.latent(x, self.level), host.nominal, host.level)

    def model_at(self, x: Tensor, nominal: float | Tensor, level: Tensor) -> Tensor:
        host = sigma_of(torch.as_tensor(nominal, dtype=torch.float64))
        return super().model_at(self.latent(x, self.on_device(level)), host, sigma_of(self._on_cpu(level).double()))

    def latent(self, x: Tensor, q: Tensor) -> Tensor:
        """The host's latent for one in these variables."""
        return x / (1 + q)

    def sigma_at(self, percent: float) -> float:
        return float(noise_per_signal(torch.tensor(self._flow_sigma_at(percent), dtype=torch.float64)))

    def _flow_sigma_at(self, percent: float) -> float:
        return float(self._percent_to_sigma(percent)) if self._percent_to_sigma is not None else 1 - percent

    def report(self, step: int, x: Tensor, denoised: Tensor, churn: float = 0.0, nominal: float | None = None) -> None:
        host = super().nominal(step) if nominal is None else float(sigma_of(torch.tensor(nominal)))
        super().report(step, self.latent(x, self.level), denoised, churn, host)


def noise_per_signal(sigma: Tensor) -> Tensor:
    return sigma / (1 - sigma)


def sigma_of(q: Tensor) -> Tensor:
    return q / (1 + q)


def in_half_log_snr(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A solver for noise levels as the solver in half-log-SNR: on a flow it works in its variables."""

    def sample_in_snr(run: Run, x: Tensor, **options: Any) -> Tensor:
        if not run.flow or run.count == 0:
            return sample(run, x, **options)
        view = AsNoiseLevels(run)
        return view.latent(sample(view, x * (1 + view.level), **options), view.level)

    return sample_in_snr


def in_snr(sample: Callable[..., Tensor], *options: str) -> Solver:
    """What the hosts only have in half-log-SNR; ``options`` are arguments of their functions."""
    return Solver(in_half_log_snr(sample), "sigma", options, own_schedule=snr_schedule)


def snr_schedule(arguments: Mapping[str, Any]) -> BaseSchedule:
    """The host's sigmas; on a flow those at 1, usually the first, are put just below, where half-log-SNR has a value.

    Args:
        arguments: ``sigmas``; of a flow also ``flow`` (true) and ``percent_to_sigma``, the model's sigma at a share of
            the way down.
    """
    sigmas = arguments["sigmas"]
    if arguments.get("flow") and len(sigmas) > 1 and sigmas[0] >= 1:
        percent_to_sigma = arguments.get("percent_to_sigma") or (lambda percent: 1 - percent)
        sigmas = sigmas.clamp(max=float(percent_to_sigma(1e-4)))
    return BaseSchedule.from_sigmas(sigmas)


REGISTERED = (
    Row(
        Solver(sample_euler_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        labels=("Euler A Comfy RF",),
        functions=("sample_euler_ancestral_RF",),
        flow=("sample_euler_ancestral",),
    ),
    Row(
        Solver(
            sample_euler_a2,
            "sigma",
            stand_ins=named("euler_a2", "eta", "s_noise", "extrapolation"),
            flow_only=True,
        ),
        labels=("Euler A2",),
        functions=("sample_euler_a2",),
    ),
    Row(
        Solver(sample_dpm_2_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        functions=("sample_dpm_2_ancestral_RF",),
        flow=("sample_dpm_2_ancestral",),
    ),
    Row(
        Solver(sample_dpmpp_2s_ancestral_flow, "sigma", ANCESTRAL, flow_only=True),
        labels=("DPM++ 2S Ancestral Comfy RF",),
        functions=("sample_dpmpp_2s_ancestral_RF",),
        flow=("sample_dpmpp_2s_ancestral",),
    ),
    Row(Solver(sample_lcm_flow, "sigma"), flow=("sample_lcm",)),
)
