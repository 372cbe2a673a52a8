"""A step with AsynDM and a plain model call, in what a GPU is told to do (see :mod:`asyndm_ext.bench.counting`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.bench.counting import META, Event, Kind, Log, counted
from asyndm_ext.bench.measure import WALKED, Walked
from asyndm_ext.bench.subjects import Subject, random_subject
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import PerPatch
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS

NETWORK, CALL, STEP = "in the network", "in the model call", "in the step"
COLUMNS = (
    ("kernels", "kernels"),
    ("kernels_plain", "plain"),
    ("ratio", "ratio"),
    ("copies_in_network", "copies in the network"),
    ("copies_per_step", "copies a step"),
    ("waiting_copies", "that wait"),
    ("read_backs", "read-backs a step"),
)
"""Of the table, and the keys of a row that they are."""


class _Called:
    """The model with its phases written down (:class:`asyndm_ext.run.Model`)."""

    def __init__(self, model: Any, log: Log) -> None:
        self._model, self._log = model, log

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        with self._log.during(CALL):
            return self._model(x, nominal, level)

    def attention(self) -> Tensor | None:
        with self._log.during(CALL):
            return self._model.attention()

    def attached(self) -> Any:
        return self._model.attached()


def step(subject: Subject, log: Log, solver: str = "Euler") -> tuple[list[Event], list[Event]]:
    """What a plain model call is, and what a step of the solver with AsynDM is, both with warm caches."""
    handles = phases(subject.network, log)
    try:
        for _ in range(2):
            log.clear()
            with torch.no_grad(), log.during(CALL):
                subject.host.plain(subject.x, float(subject.sigmas[WALKED]))
        plain = list(log.events)
        return plain, _asyndm(subject, log, solver)
    finally:
        for handle in handles:
            handle.remove()


def _asyndm(subject: Subject, log: Log, solver: str) -> list[Event]:
    base = BaseSchedule.from_sigmas(subject.sigmas)
    model = Walked(_Called(subject.model, log), subject.halvings)
    found: list[Event] = []

    def steps(numbers: range) -> Iterator[int]:
        yield from numbers[:WALKED]
        model.real = True
        with model.model.attached():
            # The first step chooses kernels and makes tables of the whole run.
            yield from numbers[WALKED : WALKED + 2]
            log.clear()
            yield numbers[WALKED + 2]
        found.extend(log.events)

    with log.during(STEP):
        region = subject.region(subject.shape)
        run = Run(
            model,
            PixelSchedule(base, subject.shape, "quadratic"),
            PerPatch(region) if subject.transformer else region,
            subject.x,
            FromHost(flow=subject.transformer, table=subject.host.table, progress=steps),
        )
        SOLVERS[solver].sample(run, subject.x)
    return found


def phases(network: nn.Module, log: Log) -> list[Any]:
    """Hooks that tell when the network runs."""
    running: list[Any] = []

    def enter(*_: Any) -> None:
        running.append(log.during(NETWORK))
        running[-1].__enter__()

    def leave(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    return [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]


def row(name: str, batch: int, latent: int | None = None, full: bool = True) -> dict[str, Any]:
    """One network at one batch size, in float16."""
    with counted() as log:
        subject = random_subject(name, batch, full, latent, META, torch.float16)
        plain, asyndm = step(subject, log)

    def number(events: list[Event], kind: Kind, *phases: str) -> int:
        return sum(e.kind == kind and (not phases or e.phase in phases) for e in events)

    ours, theirs = (number(events, "kernel", NETWORK, CALL) for events in (asyndm, plain))
    return {
        "model": name,
        "batch": batch,
        **{key: subject.detail[key] for key in ("latent", "depth")},
        "kernels": ours,
        "kernels_plain": theirs,
        "ratio": round(ours / theirs, 3),
        "copies_in_network": number(asyndm, "copy", NETWORK) - number(plain, "copy", NETWORK),
        "copies_per_step": number(asyndm, "copy"),
        "waiting_copies": sum(e.kind == "copy" and e.blocking for e in asyndm),
        "read_backs": number(asyndm, "read-back"),
    }
