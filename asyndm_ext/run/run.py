"""The run as a solver sees it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from asyndm_ext.clock.distinct import elementwise
from asyndm_ext.clock.schedule import PixelSchedule, Position
from asyndm_ext.region.regions import Region
from asyndm_ext.run.from_host import FromHost, StepRecord
from asyndm_ext.run.model import Model, TellsChange, TellsUncond
from asyndm_ext.run.sent_maps import SentMaps

# What a level may differ by, in units of the last place, when it is computed as a map and as a scalar: a power of a
# vector and of a number are not rounded alike.
_ROUNDING = 16.0


class Run:
    """What a solver is given. Most need no more than ``steps``, ``level``, ``model``, ``report``, ``advance`` and
    ``nominal``.

    - The host's way: ``count``, ``steps``, ``nominal``, ``scalar``, ``middle``.
    - Where the pixels are: ``level`` (beside the latent), ``exact`` (float64 on the CPU), ``alpha``; all of it:
      ``schedule``.
    - The network: ``model``, ``model_at``, ``uncond``; what others have ``changed`` in its levels.
    - Noise: ``randn_like``, ``noise_sampler``.
    - Going on: ``advance``, ``move``; back: ``restart``; looking ahead: ``ahead``, ``peek``.
    - Telling the host: ``report``. What else the host has given: ``host``.
    - Maps of one's own, to and fro between CPU and device: ``maps``.

    Args:
        model: the guided model.
        schedule: levels per pixel.
        region: where the slow pixels are.
        x: the starting latent ``(B,C,H,W)``; tells device and dtype.
        host: what the host gives.
    """

    def __init__(
        self, model: Model, schedule: PixelSchedule, region: Region, x: Tensor, host: FromHost | None = None
    ) -> None:
        self.schedule = schedule
        self.host = host = host or FromHost()
        self.maps = SentMaps(x)
        self.randn_like = randn_like = host.randn_like
        # Not through self: a run that refers to itself would keep its tensors until the garbage collector comes by.
        self.noise_sampler = host.noise_sampler or (lambda sigma, sigma_next: randn_like(x))
        self._model = model
        self._region = region
        self._alpha: tuple[Tensor, Tensor] | None = None
        self._last = self._strength(0.0)
        schedule.lead_in(self._last)

    # -- the host's way

    @property
    def count(self) -> int:
        """Number of solver steps."""
        return self.schedule.base.steps

    def steps(self, count: int | None = None) -> Iterable[int]:
        """The solver steps; the last one leads to the end of the schedule. ``count``: if not one from node to node."""
        return self.host.progress(range(self.count if count is None else count))

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

    # -- where the pixels are

    @property
    def level(self) -> Tensor:
        """The current level map ``(B,1,H,W)`` on the latent's device (sigma or timestep)."""
        return self.maps.on_device(self.schedule.level)

    @property
    def exact(self) -> Tensor:
        """The current level map in float64 on the CPU."""
        return self.schedule.level

    @property
    def alpha(self) -> Tensor:
        """alphas_cumprod at the current map of whole timesteps, on the latent's device."""
        level = self.schedule.level
        if self._alpha is None or self._alpha[0] is not level:
            self._alpha = level, self.host.noise_table.alpha_at(level.to(self.maps.dtype))
        return self.maps.on_device(self._alpha[1])

    # -- the network

    def model(self, x: Tensor) -> Tensor:
        """Call the model at the current level map."""
        return self.model_at(x, self.schedule.nominal, self.schedule.level)

    def model_at(self, x: Tensor, nominal: float | Tensor, level: Tensor) -> Tensor:
        """Call the model at a level map of the solver's choice and let the region see the attention.

        A pixel that differs from the host's level by no more than rounding is at it, so that a uniform map is one.
        """
        host, level = float(nominal), self.maps.on_cpu(level).double()
        rounding = _ROUNDING * torch.finfo(self.maps.dtype).eps * abs(host)
        snapped = elementwise(lambda levels: torch.where((levels - host).abs() <= rounding, host, levels), level)
        answer = self._model(x, host, snapped)
        self._region.observe(self._model.attention(), self._progress)
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

    # -- going on

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
        strength = self._last = self._strength(self._progress) if to is None else to.strength
        record = StepRecord(schedule.step, schedule.nominal, schedule.level, strength)
        if to is None:
            schedule.advance(strength)
        else:
            schedule.take(to)
        if self.host.watch is not None:
            self.host.watch(record)

    def ahead(self) -> Tensor:
        """The level map that one more step would lead to if the region stayed as it was in the last one; the clock
        stands still."""
        return self.maps.on_device(self.schedule.ahead(self._last))

    def peek(self, nominal: float) -> Position:
        """Where the newest region lets the pixels be when the host is at this level; the clock stands still."""
        return self.schedule.peek(self._strength(self._progress), nominal)

    def restart(self, nominal: float) -> Tensor:
        """Put the clock back to where the host is at a higher level; returns the level map on the device."""
        return self.maps.on_device(self.schedule.restart(self._strength(self._progress), nominal))

    # -- telling the host

    def report(self, step: int, x: Tensor, denoised: Tensor, churn: float = 0.0, nominal: float | None = None) -> None:
        """The host's callback: progress bar, live preview, interrupts.

        Args:
            churn: by how much sigma was raised.
            nominal: the host's level, where it is not that of a node.
        """
        if self.host.callback is not None:
            sigma = torch.tensor(self.nominal(step) if nominal is None else nominal, dtype=torch.float32)
            sigma_hat = sigma * (1 + churn)
            self.host.callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})

    # --

    @property
    def _progress(self) -> float:
        """How much of the host's schedule is done, fraction in [0, 1]."""
        return 1 - self.schedule.clock.remaining

    def _strength(self, progress: float) -> Tensor:
        """Raises RuntimeError where a region says NaN: the clock would take it for no lag at all."""
        strength = self._region.strength(progress)
        if not bool(torch.isfinite(strength).all()):
            raise RuntimeError("the strength map of the region is not finite")
        return strength
