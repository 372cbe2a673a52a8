"""Restart: Heun's steps that go through a part of the noise levels again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule
from asyndm_ext.run import Run
from asyndm_ext.solvers.helpers import to_d
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver

RestartList = Mapping[float, tuple[int, int, float]]
_RHO = 7.0


def _karras(n: int, low: float, high: float) -> Tensor:
    # In float32 as the host does: whether the end of a way down is above the next step's start is a matter of the
    # last bit, and decides whether noise is drawn.
    ramp = torch.linspace(0, 1, n, dtype=torch.float32)
    return (high ** (1 / _RHO) + ramp * (low ** (1 / _RHO) - high ** (1 / _RHO))) ** _RHO


def restart_plan(sigmas: Tensor, restart_list: RestartList | None = None) -> tuple[Tensor, list[tuple[float, float]]]:
    """The noise levels without the repeats, and all steps ``(from, to)`` with them.

    Args:
        sigmas: the host's, with the 0 at the end.
        restart_list: ``{where: (levels, times, up to)}``. By default, from 20 steps on, the way from 2 to 0.1 is
            repeated, with some of the steps taken from the others.
    """
    sigmas, steps = sigmas.cpu(), len(sigmas) - 1
    if restart_list is None:
        restart_list = {}
        if steps >= 20:
            again, times = (steps // 4, 2) if steps >= 36 else (9, 1)
            main = _karras(steps - again * times, float(sigmas[-2]), float(sigmas[0]))
            sigmas = torch.cat([main, main.new_zeros(1)])
            restart_list = {0.1: (again + 1, times, 2.0)}

    def nearest(level: float) -> int:
        return int((sigmas - level).abs().argmin())

    repeats = {nearest(where): (count, times, nearest(up_to)) for where, (count, times, up_to) in restart_list.items()}
    plan = []
    for i, step in enumerate(pairwise(sigmas.tolist()), start=1):
        plan.append(step)
        count, times, top = repeats.get(i, (0, 0, i))
        if top < i:
            way = _karras(count, float(sigmas[i]), float(sigmas[top]))
            plan += list(pairwise(way.tolist())) * times
    return sigmas, plan


def restart_schedule(arguments: Mapping[str, Any]) -> BaseSchedule:
    return BaseSchedule.from_sigmas(restart_plan(arguments["sigmas"], arguments.get("restart_list"))[0])


@torch.no_grad()
def sample_restart(
    run: Run, x: Tensor, sigmas: Tensor, s_noise: float = 1.0, restart_list: RestartList | None = None
) -> Tensor:
    """Xu et al. (2023). At a restart each pixel goes back up to its own level of that time, with noise for the rise."""
    _, plan = restart_plan(sigmas, restart_list)
    for i in run.steps(len(plan)):
        start, end = plan[i]
        before, last = run.level, run.schedule.nominal
        if start != last:
            raised = run.restart(start)
            if start > last:
                x = x + run.randn_like(x) * s_noise * (raised**2 - before**2).clamp_min(0).sqrt()
        sigma = run.level
        denoised = run.model(x)
        run.report(i, x, denoised, nominal=end)
        slope = to_d(x, sigma, denoised)
        dt = run.advance(run.peek(end)) - sigma
        if end > 0:
            slope = (slope + to_d(x + slope * dt, run.level, run.model(x + slope * dt))) / 2
        x = x + slope * dt
    return x


REGISTERED = (
    Row(
        Solver(sample_restart, "sigma", ("sigmas", "s_noise", "restart_list"), own_schedule=restart_schedule),
        labels=("Restart",),
        functions=("restart_sampler",),
    ),
)
