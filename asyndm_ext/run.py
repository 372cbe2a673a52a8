"""One sampling run as a solver sees it: schedule, region and model brought together.

The road of a step: the region's strength map moves the clock, the clock gives the level map, the solver
steps to it, the model call captures the attention that makes the next region.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from asyndm_ext.noise import NoiseTable
from asyndm_ext.regions import Region
from asyndm_ext.schedule import PixelSchedule, Position
from asyndm_ext.transfer import sent_together

# What a level may differ by, in units of the last place, when it is computed as a map and as a scalar: a power of a
# vector and of a number are not rounded alike.
_ROUNDING = 16.0
_KEPT = 32  # maps; a step has fewer


class Model(Protocol):
    """The guided model of a host, level maps included."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        """Denoised (noise-level samplers) or eps (timestep samplers) ``(B,C,H,W)``.

        Args:
            x: latent ``(B,C,H,W)``.
            nominal: the host's own level of this step (sigma or timestep).
            level: the level of each pixel ``(B,1,H,W)``, float64 on the CPU.
        """

    def attention(self) -> Tensor | None:
        """The objects' maps ``(B,n,h,w)`` of the last call, or None."""


@runtime_checkable
class TellsUncond(Protocol):
    """A model that also tells what it answers without the prompt."""

    last_uncond: Tensor | None
    """Of the last call, ``(B,C,H,W)``, as that call's own answer; None before the first."""


@runtime_checkable
class TellsChange(Protocol):
    """A model that also tells what others have done to the level that it was called with."""

    changed: Tensor | None
    """The factor of each image in the last call, ``(B,1,1,1)`` float64 on the CPU; None where nobody has."""


@dataclass(frozen=True)
class _Sent:
    """A map that a solver has been given. Attributes: source: what it was made of; here: on the CPU in the solver's
    precision; there: beside the latent."""

    source: Tensor
    here: Tensor
    there: Tensor


@dataclass(frozen=True)
class StepRecord:
    """What a step did, for previews and reports. Maps are ``(B,1,H,W)`` float64 on the CPU."""

    step: int
    nominal: float
    level: Tensor
    strength: Tensor


class Run:
    """What a solver is given.

    Args:
        model: the guided model.
        schedule: levels per pixel.
        region: where the slow pixels are.
        x: the starting latent ``(B,C,H,W)``; tells device and dtype. Maps handed out are at least float32.
        randn_like: the host's noise source.
        callback: the host's per-step callback, called with k-diffusion's dictionary; scalars in it are nominal.
        table: alphas_cumprod, for timestep solvers.
        watch: called with a :class:`StepRecord` at the end of each step.
        progress: wraps the range of steps, for a console progress bar.
        noise_sampler: the host's normals of an interval of nominal sigmas (a Brownian tree), for SDE solvers;
            fresh ones from ``randn_like`` where the host has none.
        flow: the model is a rectified flow: sigma in [0, 1] and x = (1 - sigma) * clean + sigma * noise.
        percent_to_sigma: the host's sigma at a share of the way down, for the solvers that ask.
    """

    def __init__(
        self,
        model: Model,
        schedule: PixelSchedule,
        region: Region,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        callback: Callable[[dict[str, Any]], None] | None = None,
        table: NoiseTable | None = None,
        watch: Callable[[StepRecord], None] | None = None,
        progress: Callable[[range], Iterable[int]] = iter,
        noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
        flow: bool = False,
        percent_to_sigma: Callable[[float], float] | None = None,
    ) -> None:
        self.schedule = schedule
        self.region = region
        self.flow = flow
        self.randn_like = randn_like
        self._model = model
        self._callback = callback
        self._table = table
        self._watch = watch
        self._progress = progress
        self._percent_to_sigma = percent_to_sigma
        # Not through self: a run that refers to itself would keep its tensors until the garbage collector comes by.
        self.noise_sampler = noise_sampler or (lambda sigma, sigma_next: randn_like(x))
        self._device = x.device
        self._dtype = torch.promote_types(x.dtype, torch.float32)
        self._handed_out: deque[_Sent] = deque(maxlen=_KEPT)
        self._alpha: tuple[Tensor, Tensor] | None = None
        self._last = self._strength(0.0)
        schedule.lead_in(self._last)

    @property
    def count(self) -> int:
        """Number of solver steps."""
        return self.schedule.base.steps

    def steps(self, count: int | None = None) -> Iterable[int]:
        """The solver steps; the last one leads to the end of the schedule. ``count``: if not one from node to node."""
        return self._progress(range(self.count if count is None else count))

    def nominal(self, step: int) -> float:
        """The host's own level at the start of a solver step (or, after the last, at its end)."""
        return self.schedule.base.nominal(step)

    def scalar(self, step: int) -> Tensor:
        """The nominal level as a scalar tensor of the host's dtype, to go through the formulas that maps go through."""
        return torch.tensor(self.nominal(step), dtype=self.schedule.base.dtype)

    def middle(self, nominal: Tensor, nominal_next: Tensor, share: float) -> Tensor:
        """The nominal level a share of the way in log-sigma; of the host's dtype and, as its Brownian tree answers to
        the last bit of what it is asked, in the host's arithmetic."""
        t, t_next = nominal.log(), nominal_next.log()
        return (t + (t_next - t) * share).exp()

    @property
    def level(self) -> Tensor:
        """The current level map ``(B,1,H,W)`` on the latent's device (sigma or timestep)."""
        return self.on_device(self.schedule.level)

    @property
    def exact(self) -> Tensor:
        """The current level map in float64 on the CPU."""
        return self.schedule.level

    @property
    def position(self) -> Tensor:
        """How many of the host's steps each pixel is on its way, fractions, ``(B,1,H,W)`` float64 on the CPU."""
        return (1 - self.schedule.clock.height) * self.schedule.base.updates

    @property
    def progress(self) -> float:
        """How much of the host's schedule is done, fraction in [0, 1]."""
        return 1 - self.schedule.clock.remaining

    def on_device(self, level: Tensor) -> Tensor:
        """A map of the CPU beside the latent; the same one is sent once."""
        return self.all_on_device(level)[0]

    def all_on_device(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Several maps of the CPU beside the latent, in one copy."""
        found = {id(known.source): known.there for known in self._handed_out}
        new = [one for one in maps if id(one) not in found]
        here = [one.to(self._dtype) for one in new]
        for sent in map(_Sent, new, here, sent_together(here, self._device)):
            self._handed_out.append(sent)
            found[id(sent.source)] = sent.there
        return tuple(found[id(one)] for one in maps)

    def between(self, work: Callable[..., Any], *maps: Tensor) -> Any:
        """A level map (or a tuple of them) made of others that this run has handed out, on the device.

        It is worked out on the CPU and sent, so that :meth:`model_at` has it there without asking the device.
        """
        made = work(*map(self._on_cpu, maps))
        return self.all_on_device(*made) if isinstance(made, tuple) else self.on_device(made)

    def _on_cpu(self, level: Tensor) -> Tensor:
        """A level map in the precision that solvers have it in; one that was handed out as it was before."""
        for known in self._handed_out:
            if level is known.there:
                return known.here
        return level.cpu()

    def _strength(self, progress: float) -> Tensor:
        """Raises RuntimeError where a region says NaN: the clock would take it for no lag at all."""
        strength = self.region.strength(progress)
        if not bool(torch.isfinite(strength).all()):
            raise RuntimeError("the strength map of the region is not finite")
        return strength

    def model(self, x: Tensor) -> Tensor:
        """Call the model at the current level map."""
        return self.model_at(x, self.schedule.nominal, self.schedule.level)

    def model_at(self, x: Tensor, nominal: float | Tensor, level: Tensor) -> Tensor:
        """Call the model at a level map of the solver's choice and let the region see the attention.

        A pixel that differs from the host's level by no more than rounding is at it, so that a uniform map is one.
        """
        host, level = float(nominal), self._on_cpu(level).double()
        rounding = _ROUNDING * torch.finfo(self._dtype).eps * abs(host)
        answer = self._model(x, host, torch.where((level - host).abs() <= rounding, host, level))
        self.region.observe(self._model.attention(), self.progress)
        return answer

    def uncond(self) -> Tensor:
        """The last model call's answer without the prompt, for a solver that is registered as needing it."""
        if not isinstance(self._model, TellsUncond) or self._model.last_uncond is None:
            raise RuntimeError("this model does not tell its answer without the prompt")
        return self._model.last_uncond

    def changed(self) -> Tensor | None:
        """The factor ``(B,1,1,1)`` by which others have changed the level of the last model call in its place, for a
        solver whose host calls its model with the very memory that it reads its levels from; None: they have not."""
        return self._model.changed if isinstance(self._model, TellsChange) else None

    def advance(self, to: Position | None = None) -> Tensor:
        """End the step: the newest region moves the clock; returns the next level map on the device.

        Args:
            to: what :meth:`peek` has shown; by default the next node of the schedule.
        """
        self.move(to)
        return self.level

    def move(self, to: Position | None = None) -> None:
        """The same for a solver that has no use for the map itself: it is not sent."""
        schedule = self.schedule
        strength = self._last = self._strength(self.progress) if to is None else to.strength
        record = StepRecord(schedule.step, schedule.nominal, schedule.level, strength)
        if to is None:
            schedule.advance(strength)
        else:
            schedule.take(to)
        if self._watch is not None:
            self._watch(record)

    def ahead(self) -> Tensor:
        """The level map that one more step would lead to if the region stayed as it was in the last one; the clock
        stands still."""
        return self.on_device(self.schedule.ahead(self._last))

    def peek(self, nominal: float) -> Position:
        """Where the newest region lets the pixels be when the host is at this level; the clock stands still."""
        return self.schedule.peek(self._strength(self.progress), nominal)

    def restart(self, nominal: float) -> Tensor:
        """Put the clock back to where the host is at a higher level; returns the level map on the device."""
        return self.on_device(self.schedule.restart(self._strength(self.progress), nominal))

    def sigma_at(self, percent: float) -> float:
        """The model's sigma at a share of the way down from the noisiest, fraction in (0, 1)."""
        if self._percent_to_sigma is not None:
            return float(self._percent_to_sigma(percent))
        return 1 - percent if self.flow else self.table.sigma_at(percent)

    @property
    def alpha(self) -> Tensor:
        """alphas_cumprod at the current map of whole timesteps, on the latent's device."""
        level = self.schedule.level
        if self._alpha is None or self._alpha[0] is not level:
            self._alpha = level, self.table.alpha_at(self._rounded(level))
        return self.on_device(self._alpha[1])

    def _rounded(self, level: Tensor) -> Tensor:
        """As solvers have it."""
        return level.to(self._dtype)

    @property
    def table(self) -> NoiseTable:
        """The model's noise levels, for timestep solvers."""
        if self._table is None:
            raise RuntimeError("this run has no alphas_cumprod: a timestep solver was given a noise-level model")
        return self._table

    def report(self, step: int, x: Tensor, denoised: Tensor, churn: float = 0.0, nominal: float | None = None) -> None:
        """The host's callback: progress bar, live preview, interrupts.

        Args:
            churn: by how much sigma was raised.
            nominal: the host's level, where it is not that of a node.
        """
        if self._callback is not None:
            sigma = torch.tensor(self.nominal(step) if nominal is None else nominal, dtype=torch.float32)
            sigma_hat = sigma * (1 + churn)
            self._callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})
