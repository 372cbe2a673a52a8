"""What the registry knows about a solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule

Settings = tuple[tuple[str, str], ...]
"""Argument names and the names of the host's settings that they are taken from."""

# Arguments that many of the hosts' functions have.
CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ANCESTRAL = ("eta", "s_noise")


def named(prefix: str, *arguments: str) -> Settings:
    """Settings called after their arguments."""
    return tuple((argument, f"{prefix}_{argument}") for argument in arguments)


@dataclass(frozen=True)
class Solver:
    """A solver and what it needs.

    Attributes:
        sample: ``(run, x, **options) -> x``.
        space: "sigma" (noise levels, the model returns denoised) or "timestep" (VP space, the model returns eps).
        options: the host's keyword arguments that it takes.
        brownian: its noise comes from a Brownian tree rather than from fresh draws.
        guidance: what the CFG scale is multiplied by.
        uncond: needs the model's answer without the prompt.
        own_schedule: makes its levels from the host's arguments; otherwise they are the host's list.
        settings: the host's settings that it takes as arguments: argument name, setting's name.
        stand_ins: the same, of hosts whose function reads a setting where others take an argument.
        adaptive: how many steps it takes is not known beforehand.
        flow_only: its formula has no meaning above sigma 1.
        never_flow: its formula has no meaning on a rectified flow.
    """

    sample: Callable[..., Tensor]
    space: Literal["sigma", "timestep"]
    options: tuple[str, ...] = ()
    brownian: bool = False
    guidance: float = 1.0
    uncond: bool = False
    own_schedule: Callable[[Mapping[str, Any]], BaseSchedule] | None = None
    settings: Settings = ()
    stand_ins: Settings = ()
    adaptive: bool = False
    flow_only: bool = False
    never_flow: bool = False

    def schedule(self, arguments: Mapping[str, Any]) -> BaseSchedule:
        """The levels that it walks through, from the host's arguments ``sigmas``, ``timesteps`` and so on."""
        if self.own_schedule is not None:
            return self.own_schedule(arguments)
        if self.space == "timestep":
            # The host lists them from clean to noisy; the last level is its first timestep.
            return BaseSchedule.from_timesteps(arguments["timesteps"].flip(0))
        return BaseSchedule.from_sigmas(arguments["sigmas"])

    def filled(self, arguments: Mapping[str, Any], setting: Callable[[str], Any]) -> dict[str, Any]:
        """The host's arguments, with its settings where its function has no such argument, or None for it.

        Args:
            arguments: of the host's function, by name.
            setting: the host's setting by its name; None where it has none of that name.
        """
        found = dict(arguments)
        for argument, name in (*self.settings, *self.stand_ins):
            if found.get(argument) is None:
                value = setting(name)
                if value is not None:
                    found[argument] = value
        return found

    def chosen(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the host's arguments that it takes."""
        names = (*self.options, *(argument for argument, _ in self.stand_ins))
        return {name: arguments[name] for name in names if arguments.get(name) is not None}


def cfgpp_solver(sample: Callable[..., Tensor], *options: str, prefix: str = "", brownian: bool = False) -> Solver:
    """CFG++ of hosts that scale nothing for it.

    Args:
        options: arguments of the host's function. prefix: of the host's settings for them.
    """
    stand_ins = named(prefix, *options) if prefix else ()
    return Solver(sample, "sigma", options, brownian=brownian, uncond=True, stand_ins=stand_ins)
