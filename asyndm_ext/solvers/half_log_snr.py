"""Solvers that count in half-log-SNR: on a flow by a change of variables.

On noise levels half-log-SNR is ``-log sigma``, and there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule
from asyndm_ext.run import Run
from asyndm_ext.solvers.solver import Solver


class AsNoiseLevels(Run):
    """A run of a flow in the variables of noise levels: ``x / (1 - sigma)`` is ``clean + q * noise``, with
    ``q = sigma / (1 - sigma)``.

    Half-log-SNR is ``-log q``, so what a solver for noise levels computes here is its form in half-log-SNR for the
    flow. Levels, latents and intervals are translated on their way to the host and back.
    """

    def __init__(self, run: Run) -> None:
        self.__dict__.update(run.__dict__)  # a view: schedule, region and maps are the run's own
        self._translated: tuple[Tensor, Tensor] | None = None
        # The host's levels to the last bit: a Brownian tree answers to that.
        self._host_levels = levels = {float(self.scalar(i)): run.scalar(i) for i in range(run.count + 1)}
        self.noise_sampler = lambda q, q_next: run.noise_sampler(_host_level(levels, q), _host_level(levels, q_next))
        self.host = replace(run.host, flow=False, percent_to_sigma=lambda percent: _q(run.host.sigma_at(percent)))

    def middle(self, nominal: Tensor, nominal_next: Tensor, share: float) -> Tensor:
        t, t_next = (torch.logit(_host_level(self._host_levels, q)) for q in (nominal, nominal_next))
        sigma = torch.sigmoid(t + (t_next - t) * share)
        q = noise_per_signal(sigma.double()).to(sigma.dtype)
        self._host_levels[float(q)] = sigma
        return q

    def nominal(self, step: int) -> float:
        return _q(super().nominal(step))

    @property
    def level(self) -> Tensor:
        return self.maps.on_device(self.exact)

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
        host, there = sigma_of(torch.as_tensor(nominal, dtype=torch.float64)), self.maps.on_device(level)
        return super().model_at(self.latent(x, there), host, sigma_of(self.maps.on_cpu(level).double()))

    def latent(self, x: Tensor, q: Tensor) -> Tensor:
        """The host's latent for one in these variables."""
        return x / (1 + q)

    def report(self, step: int, x: Tensor, denoised: Tensor, churn: float = 0.0, nominal: float | None = None) -> None:
        host = super().nominal(step) if nominal is None else float(sigma_of(torch.tensor(nominal)))
        super().report(step, self.latent(x, self.level), denoised, churn, host)


def _host_level(levels: Mapping[float, Tensor], q: Tensor) -> Tensor:
    """The host's sigma for a nominal level in the variables of noise levels."""
    return levels.get(float(q), sigma_of(q))


def noise_per_signal(sigma: Tensor) -> Tensor:
    return sigma / (1 - sigma)


def _q(sigma: float) -> float:
    return float(noise_per_signal(torch.tensor(sigma, dtype=torch.float64)))


def sigma_of(q: Tensor) -> Tensor:
    return q / (1 + q)


def in_half_log_snr(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A solver for noise levels as the solver in half-log-SNR: on a flow it works in its variables."""

    def sample_in_snr(run: Run, x: Tensor, **options: Any) -> Tensor:
        if not run.host.flow or run.count == 0:
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
