"""Steps with and without AsynDM, turn by turn in one process, and what each of them takes.

The solver with AsynDM is the one that runs in the WebUIs, in one go. Where it asks for its next step, a run without
AsynDM takes one of its own first, so that a step of the one kind always has a step of the other before and behind it:
whatever else the machine does meets both. The first steps, in which the pixels' levels drift apart, are walked
through with a stand-in for the network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.bench import memory
from asyndm_ext.bench.guided import PixelModel
from asyndm_ext.bench.naive import ExplicitSoftmax, a_row_per_pixel
from asyndm_ext.bench.subjects import Attachable, Subject
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.model.patches import patch_grid
from asyndm_ext.region.grid import halved_grid
from asyndm_ext.region.regions import PerPatch
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS

WALKED = 6
"""Steps before the first measured one."""


@dataclass
class Cost:
    """Seconds of the steps of one kind: on the clock, and of the processor."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class Stopwatch:
    """Seconds since it was made, once the device has finished what it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def into(self, cost: Cost) -> None:
        self._wait()
        cost.wall.append(time.perf_counter() - self._wall)
        cost.cpu.append(time.process_time() - self._cpu)


class Walked:
    """The model, or in the first steps something that costs nothing."""

    def __init__(self, model: Attachable, halvings: int) -> None:
        self.model = model
        self._halvings = halvings
        self.real = False
        self.last: tuple[Tensor, float, Tensor, Tensor] | None = None
        self._maps: Tensor | None = None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        if not self.real:
            grid = halved_grid(x.shape[-2], x.shape[-1], self._halvings)
            generator = torch.Generator().manual_seed(int(1000 * nominal))
            self._maps = torch.rand(len(x), 2, *grid, generator=generator)
            return 0.5 * torch.tanh(x)
        answer = self.model(x, nominal, level)
        self.last = (x, nominal, level, answer)
        return answer

    def attention(self) -> Tensor | None:
        return self.model.attention() if self.real else self._maps


class Comparison:
    """A run with AsynDM and one without, step by step beside each other.

    Args:
        subject: what to run.
        pairs: how many steps of each kind to measure.
        naive: whether to measure a model call of the naive way as well.
        on_step: called after each of the :func:`steps_of` steps.
    """

    def __init__(self, subject: Subject, pairs: int, naive: bool, on_step: Callable[[], object] = lambda: None) -> None:
        self._subject, self._pairs, self._naive, self._on_step = subject, pairs, naive, on_step
        self._model = Walked(subject.model, subject.halvings)
        self._plain_x = subject.x
        self.plain, self.asyndm, self.naive = Cost(), Cost(), Cost()
        self.memory: dict[str, memory.Peak] = {}
        self.slow: list[float] = []
        self.distinct: list[int] = []
        self.difference: dict[str, float] = {}

    def run(self) -> Comparison:
        subject = self._subject
        base = BaseSchedule.from_sigmas(subject.sigmas)
        if not 0 < self._pairs <= base.steps - WALKED - 2:
            raise ValueError(f"pairs must be between 1 and {base.steps - WALKED - 2}, got {self._pairs}")
        region = subject.region(subject.shape)
        run = Run(
            self._model,
            PixelSchedule(base, subject.shape, "quadratic"),
            PerPatch(region) if subject.transformer else region,
            subject.x,
            FromHost(
                flow=subject.transformer,
                table=subject.host.table,
                watch=lambda record: self.slow.append(float((record.strength > 0).double().mean())),
                progress=self._turns,
            ),
        )
        SOLVERS["Euler"].sample(run, subject.x)
        return self

    def _turns(self, steps: range) -> Iterator[int]:
        """The steps that the solver takes, each among the others' ones."""
        for step in steps[:WALKED]:
            self._plain_step(step, walked=True)
            yield step
        self.slow.clear()
        self._model.real = True
        device = self._subject.x.device
        # One of each unmeasured: kernels are chosen, buffers are made.
        first = steps[WALKED]
        with self._model.model.attached():
            yield first
        self._on_step()
        with memory.watched(device) as peak:
            self._plain_step(first)
        self.memory["plain"] = peak()
        self._on_step()
        for step in steps[WALKED + 1 : WALKED + 1 + self._pairs]:
            self._timed_plain_step(step)
            with self._model.model.attached():
                watch = Stopwatch(device)
                yield step
                watch.into(self.asyndm)
            self._note()
            self._on_step()
        last = steps[WALKED + 1 + self._pairs]
        self._timed_plain_step(last)
        with self._model.model.attached(), memory.watched(device) as peak:
            yield last
        self.memory["asyndm"] = peak()
        self._on_step()
        if self._naive:
            self._naive_call()
            self._on_step()

    def _plain_step(self, step: int, walked: bool = False) -> None:
        """Euler's step as the WebUI has it."""
        sigma, following = (float(self._subject.sigmas[i]) for i in (step, step + 1))
        x = self._plain_x
        with torch.no_grad():
            denoised = 0.5 * torch.tanh(x) if walked else self._subject.host.plain(x, sigma)
        self._plain_x = x + (x - denoised) / sigma * (following - sigma)

    def _timed_plain_step(self, step: int) -> None:
        watch = Stopwatch(self._subject.x.device)
        self._plain_step(step)
        watch.into(self.plain)
        self._on_step()

    def _note(self) -> None:
        assert self._model.last is not None
        _, _, level, _ = self._model.last
        self.distinct.append(max(image.unique().numel() for image in level))

    def _naive_call(self) -> None:
        """The last model call again, in the naive way: what it takes, and whether it answers the same."""
        assert self._model.last is not None
        subject = self._subject
        x, nominal, level, answer = self._model.last
        maps = self._model.attention()
        size = (x.shape[-2], x.shape[-1])
        h, w = patch_grid(*size) if subject.transformer else halved_grid(*size, subject.halvings)
        softmax = ExplicitSoftmax(subject.columns, h * w, subject.text, subject.transformer, subject.network)
        model = PixelModel(
            subject.host,
            subject.network,
            subject.columns,
            lambda t: a_row_per_pixel(t, subject.transformer),
            capture=False,
        )
        with torch.no_grad(), ExitStack() as stack:
            stack.enter_context(model.attached())
            stack.enter_context(softmax.attached())
            with memory.watched(x.device) as peak:
                watch = Stopwatch(x.device)
                found = model(x, nominal, level)
                found_maps = softmax.maps()
                watch.into(self.naive)
            self.memory["naive"] = peak()
        assert maps is not None
        self.difference = {
            "answer": _relative(found, answer),
            "attention": _relative(found_maps, maps.flatten(-2)),
        }


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())


def ratios(of: Sequence[float], plain: Sequence[float]) -> list[float]:
    """Each step against the mean of the plain ones before and behind it."""
    return [2 * seconds / (plain[i] + plain[i + 1]) for i, seconds in enumerate(of)]


def spread(values: Sequence[float], prefix: str = "ratio") -> dict[str, float]:
    """Median and extremes."""
    found = {"": statistics.median(values), "_min": min(values), "_max": max(values)}
    return {prefix + suffix: round(value, 4) for suffix, value in found.items()}


def steps_of(pairs: int, naive: bool) -> int:
    """Steps of a comparison that take time."""
    return 2 * pairs + 4 + naive


def compare(
    subject: Subject,
    pairs: int,
    naive: bool,
    about: dict[str, Any],
    on_step: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """The rows of one subject: with AsynDM, with it off, and perhaps the naive way."""
    done = Comparison(subject, pairs, naive, on_step).run()
    weights = sum(p.numel() * p.element_size() for p in subject.network.parameters())
    common = {"model": subject.name, **about, "batch": len(subject.x), **subject.detail}
    common["step_seconds"] = round(statistics.median(done.plain.wall), 4)

    def row(variant: str, wall: list[float], cpu: list[float], kind: str) -> dict[str, Any]:
        peak, plain = done.memory[kind], done.memory["plain"]
        return {
            **common,
            "variant": variant,
            "pairs": len(wall),
            **spread(wall),
            **spread(cpu, "cpu_ratio"),
            "memory_ratio": round((weights + peak.step) / (weights + plain.step), 4),
            "step_memory_ratio": round(peak.step / plain.step, 4),
            "memory_mib": round((weights + peak.step) / 2**20, 1),
            "weights_mib": round(weights / 2**20, 1),
        }

    plain = done.plain
    rows = [
        row("asyndm", ratios(done.asyndm.wall, plain.wall), ratios(done.asyndm.cpu, plain.cpu), "asyndm")
        | {"slow_fraction": round(statistics.mean(done.slow), 3), "timesteps": max(done.distinct)},
        # A plain step against the one before it, with hooks put on and taken off in between.
        row(
            "off",
            [b / a for a, b in zip(plain.wall, plain.wall[1:], strict=False)],
            [b / a for a, b in zip(plain.cpu, plain.cpu[1:], strict=False)],
            "plain",
        ),
    ]
    if naive:
        wall, cpu = (
            [one[0] / statistics.median(before)]
            for one, before in ((done.naive.wall, plain.wall), (done.naive.cpu, plain.cpu))
        )
        rows.append(row("naive", wall, cpu, "naive") | {"differs_by": done.difference})
    return rows
