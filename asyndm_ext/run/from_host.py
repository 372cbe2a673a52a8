"""What a host gives to a run beside its model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable


@dataclass(frozen=True)
class StepRecord:
    """What a step did, for previews and reports. Maps are ``(B,1,H,W)`` float64 on the CPU."""

    step: int
    nominal: float
    level: Tensor
    strength: Tensor


@dataclass(frozen=True)
class FromHost:
    """All of it may be left out.

    Attributes:
        randn_like: fresh normals like a tensor, from where the host draws them.
        noise_sampler: the host's normals of an interval of nominal sigmas (a Brownian tree), for SDE solvers;
            fresh ones from ``randn_like`` where the host has none.
        flow: the model is a rectified flow: sigma in [0, 1] and x = (1 - sigma) * clean + sigma * noise.
        table: alphas_cumprod, for timestep solvers.
        percent_to_sigma: the host's sigma at a share of the way down, for the solvers that ask.
        callback: the host's per-step callback, called with k-diffusion's dictionary; scalars in it are nominal.
        watch: called with a :class:`StepRecord` at the end of each step.
        progress: wraps the range of steps, for a console progress bar.
    """

    randn_like: Callable[[Tensor], Tensor] = torch.randn_like
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None
    flow: bool = False
    table: NoiseTable | None = None
    percent_to_sigma: Callable[[float], float] | None = None
    callback: Callable[[dict[str, Any]], None] | None = None
    watch: Callable[[StepRecord], None] | None = None
    progress: Callable[[range], Iterable[int]] = iter

    @property
    def noise_table(self) -> NoiseTable:
        """``table``, for who cannot do without.

        Raises:
            RuntimeError: the host has none.
        """
        if self.table is None:
            raise RuntimeError("this run has no alphas_cumprod: a timestep solver was given a noise-level model")
        return self.table

    def sigma_at(self, percent: float) -> float:
        """The model's sigma at a share of the way down from the noisiest, fraction in (0, 1)."""
        if self.percent_to_sigma is not None:
            return float(self.percent_to_sigma(percent))
        return 1 - percent if self.flow else self.noise_table.sigma_at(percent)
