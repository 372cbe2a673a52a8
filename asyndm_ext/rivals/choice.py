"""One of the methods with its options: what it does to the sampler, and to how the answers become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from asyndm_ext.rivals import OPTIONS, cfgpp, read_option, scfg, seg, zigzag
from asyndm_ext.rivals.guidance import Guidance
from asyndm_ext.solvers import SOLVERS, Solver

Log = Callable[[Tensor], None]
"""Takes the equivalent guidance scale of each step, ``(B,)``."""


@dataclass(frozen=True)
class Rival:
    """A method to compare with, and its options.

    Attributes:
        name: key in :data:`asyndm_ext.rivals.OPTIONS`.
        options: those that are not at their defaults.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError: there is no such method, or it has no such option."""
        if self.name not in OPTIONS:
            raise ValueError(f"unknown method {self.name!r}; known are {', '.join(OPTIONS)}")
        unknown = set(self.options) - set(OPTIONS[self.name])
        if unknown:
            raise ValueError(f"{self.name} has no option {', '.join(sorted(unknown))}")

    @classmethod
    def read(cls, value: Any) -> Rival:
        """As a request names it: ``"seg"`` or ``{"method": "seg", "seg_scale": 2.5}``. Raises ValueError."""
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping) or not isinstance(value.get("method"), str):
            allowed = 'the name of a method, or {"method": name, option: value}'
            raise ValueError(f"it must be {allowed}, but it is {value!r}")
        options = {}
        for name, one in value.items():
            if name != "method":
                options[name] = read_option(name, str(one).lower() if isinstance(one, bool) else str(one))
        return cls(value["method"], options)

    def __str__(self) -> str:
        """Reads ``seg seg_scale=2.5``."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])

    def __getitem__(self, option: str) -> Any:
        return self.options.get(option, OPTIONS[self.name][option])

    def solver(self, name: str) -> Solver:
        """The sampler that it walks with where the host has the one of this name.

        Raises:
            ValueError: it cannot be had with this one.
        """
        if self.name == "cfg++":
            # The other CFG++ samplers take the CFG scale for lambda itself.
            return replace(SOLVERS[cfgpp.sibling(name)], guidance=1 / cfgpp.WHOLE)
        if self.name == "zigzag" and name not in ("DDIM", "Euler"):
            raise ValueError(f"Z-Sampling goes back and forth with DDIM's step or Euler's; it has none for {name!r}")
        return SOLVERS[name]

    def sample(self, solver: Solver, guidance: float, log: Log | None = None) -> Callable[..., Tensor]:
        """``(run, x, **options) -> x``."""
        if self.name != "zigzag":
            return solver.sample
        own = partial(
            zigzag.sample_zigzag,
            space=solver.space,
            guidance=guidance,
            inversion=self["zigzag_inversion"],
            rounds=int(self["zigzag_rounds"]),
            published=self["zigzag_published"],
            log=log,
        )
        return lambda run, x, **options: own(run, x)

    def guidance(self, network: nn.Module, scale: float, images: int, halvings: int = 2) -> Guidance | None:
        """How the answers become one; None: by plain guidance. ``halvings``: of the latent where attention is read.

        Raises:
            ValueError: the network is none that it can work with.
        """
        if self.name == "seg":
            return seg.SEG(network, scale, self["seg_scale"], self["seg_blur"])
        if self.name == "s-cfg":
            return scfg.SCFG(network, scale, images, self["scfg_published"], halvings)
        return None

    def calls(self, steps: int) -> float:
        """How many model calls as dear as plain guidance's it makes in so many steps."""
        if self.name == "zigzag":
            return steps + 2.0 * int(self["zigzag_rounds"]) * (steps - 1)
        return 1.5 * steps if self.name == "seg" else float(steps)
