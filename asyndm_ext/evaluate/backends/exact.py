"""Latents of the exact world (:mod:`asyndm_ext.exact`), in batches: a wind tunnel for every solver and curve."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from asyndm_ext import __version__
from asyndm_ext.evaluate.backends.embedded import one_thread
from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.metrics.exact_world import scores
from asyndm_ext.evaluate.plan import Plan, Unit
from asyndm_ext.evaluate.store import Result
from asyndm_ext.exact.config import ExactConfig, combinations
from asyndm_ext.exact.sampling import Conditions, Slow, sample
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS

_SLOW: dict[str, Slow] = {"rest": "rest", "in turn": "in turn", "last first": "last first"}


class ExactBackend:
    """The exact world as a :class:`~asyndm_ext.evaluate.backends.Backend`.

    Args:
        config: of the world.
        eta: noise weight of DDIM and the ancestral solvers; None: each one's own.
    """

    def __init__(self, config: ExactConfig, eta: float | None = None) -> None:
        self._config, self._eta = config, eta
        both = combinations(config.parts, True) + combinations(config.parts, False)
        self._asked = {str(one): one for one in both}

    def made_with(self) -> Mapping[str, Any]:
        eta = "the solver's own" if self._eta is None else self._eta
        return {"backend": "exact", **asdict(self._config), "eta": eta, "version": __version__}

    def check(self, plan: Plan) -> None:
        for prompt in plan.prompts:
            if prompt.text not in self._asked:
                raise ValueError(f"the exact world does not know the prompt {prompt.text!r}")
        for method in plan.methods:
            if method.kind == "half":
                raise ValueError("the method 'half' is for pictures; the exact world has none")
            if method.rival:
                raise ValueError(f"the method {method.kind!r} is for networks; the exact world has none")
            solver = method.host["solver"]
            if solver not in SOLVERS:
                raise ValueError(f"unknown solver {solver!r}; choose one of: {', '.join(SOLVERS)}")
            if SOLVERS[solver].flow_only:
                raise ValueError(f"{solver} is for rectified flows; the exact world is none")
            if method.host["guidance"] < 0:
                raise ValueError(f"guidance must not be negative, got {method.host['guidance']:g}")

    def run(self, units: Iterable[Unit]) -> Generator[list[Result], None, None]:
        world = ExactWorld(self._config)
        with one_thread(), torch.inference_mode():
            for unit in units:
                for method in unit.methods:
                    yield self._draw(world, unit, method)

    def _draw(self, world: ExactWorld, unit: Unit, method: Method) -> list[Result]:
        asked = [self._asked[pair.prompt.text] for pair in unit.pairs]
        own = method.asyndm()
        settings = Settings.from_dict({**own, "objects": ["animal"]}) if own else None
        conditions = Conditions(**method.host, eta=self._eta)
        latents = sample(
            world, asked, [pair.seed for pair in unit.pairs], conditions, settings, _SLOW.get(method.kind, "objects")
        )
        found = world.found(latents).tolist()
        return [
            Result(pair.prompt.text, pair.seed, method.id, scores=scores(kinds, one))
            for pair, kinds, one in zip(unit.pairs, found, asked, strict=True)
        ]
