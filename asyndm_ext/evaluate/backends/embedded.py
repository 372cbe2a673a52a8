"""Pictures of the embedded model, in batches, in one or several processes of one thread each.

A unit is always made whole and its batch is always the same, so a run that was killed ends with the same numbers, to
the last bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from asyndm_ext import __version__
from asyndm_ext.embedded.batch import Batch, run_batch
from asyndm_ext.embedded.controls import Control
from asyndm_ext.embedded.job import Job, Variant, automatic_objects
from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.metrics.little_world import SIDE, LittleWorld
from asyndm_ext.evaluate.plan import Pair, Plan, Unit
from asyndm_ext.evaluate.store import Result
from asyndm_ext.machine.workers import deaf_children, end_with
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.rivals.choice import Rival
from asyndm_ext.settings import Settings
from asyndm_ext.world.words import read

if TYPE_CHECKING:
    from asyndm_ext.world.model import WorldModel

_VARIANTS: dict[str, Variant] = {"plain": "plain", "concave": "concave"}
"""All others are AsynDM's."""
_CONTROLS: dict[str, Control] = {"rest": "rest", "half": "half"}


@dataclass(frozen=True)
class Drawing:
    """What a worker needs to know.

    Attributes:
        weights: folder of the model; None: those of the package.
        folder: of the run.
        size: side of the pictures, pixels.
        bfloat16: products in bfloat16.
        device: where the model is.
        eta: noise weight of DDIM and the ancestral solvers; None: each one's own.
    """

    weights: Path | None
    folder: Path
    size: int = 128
    bfloat16: bool = False
    device: str = "cpu"
    eta: float | None = None

    def load(self) -> WorldModel:
        from asyndm_ext.world.model import WEIGHTS, load_world

        return load_world(self.weights or WEIGHTS, self.device)


class EmbeddedBackend:
    """The embedded model as a :class:`~asyndm_ext.evaluate.backends.Backend`."""

    def __init__(self, drawing: Drawing, batch: int, processes: int = 1) -> None:
        self._drawing, self._batch, self._processes = drawing, batch, processes

    def made_with(self) -> Mapping[str, Any]:
        from asyndm_ext.world.model import FILES, WEIGHTS

        digest = hashlib.sha256()
        for name in FILES:
            digest.update(((self._drawing.weights or WEIGHTS) / name).read_bytes())
        return {
            "backend": "embedded",
            "weights": digest.hexdigest()[:16],
            "version": __version__,
            "size": self._drawing.size,
            "precision": "bfloat16" if self._drawing.bfloat16 else "float32",
            "eta": "the solver's own" if self._drawing.eta is None else self._drawing.eta,
            "batch": self._batch,
        }

    def check(self, plan: Plan) -> None:
        if self._drawing.size != SIDE:
            raise ValueError(f"the judge knows pictures of {SIDE} pixels only; leave out --size")
        for prompt in plan.prompts:
            read(prompt.text)
        for method in plan.methods:
            for pair in plan.pairs:
                job_of(pair, method, self._drawing.size)
            rival = _rival(method)
            if rival is not None:
                rival.solver(method.host["solver"])

    def run(self, units: Iterable[Unit]) -> Generator[list[Result], None, None]:
        if self._processes == 1:
            model = self._drawing.load()
            with one_thread():
                for unit in units:
                    yield from draw(model, unit, self._drawing)
        else:
            yield from self._in_processes(units)

    def _in_processes(self, units: Iterable[Unit]) -> Iterator[list[Result]]:
        # "spawn": a forked torch may wait forever for threads that were not forked.
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(
            self._processes, context, initializer=_start_worker, initargs=(self._drawing, os.getpid())
        )
        waiting = iter(units)
        running: set[Future[list[list[Result]]]] = set()
        try:
            while True:
                while len(running) <= self._processes and (unit := next(waiting, None)) is not None:
                    with deaf_children():
                        running.add(executor.submit(_work, unit))
                if not running:
                    return
                # Not forever: on Windows nothing wakes a wait without an end, Ctrl+C included.
                finished, running = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        except BaseException:
            # Units that are under way would be made to their end, which takes long.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """The batch's operations are small: processes share the cores better than threads do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- in a worker ----------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _start_worker(drawing: Drawing, parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)
    _worker.update(model=drawing.load(), drawing=drawing)


def _work(unit: Unit) -> list[list[Result]]:
    return list(draw(_worker["model"], unit, _worker["drawing"]))


def draw(model: WorldModel, unit: Unit, drawing: Drawing) -> Iterator[list[Result]]:
    """Make, save and judge the pictures of a unit, method after method."""
    average = None
    fixed = any(method.kind == "fixed" for method in unit.methods)
    if fixed and not any(method.kind == "plain" for method in unit.methods):
        average = _sample(model, unit.pairs, _plain(unit.methods[0]), drawing, keep_average=True)[1].average
    for method in unit.methods:
        plain = method.kind == "plain"
        images, batch = _sample(model, unit.pairs, method, drawing, keep_average=plain and fixed, average=average)
        average = batch.average if plain else average
        yield _results(images, batch.scales, unit.pairs, method, drawing)


def _plain(method: Method) -> Method:
    return Method("plain", method.conditions)


def _sample(
    model: WorldModel,
    pairs: Sequence[Pair],
    method: Method,
    drawing: Drawing,
    keep_average: bool = False,
    average: torch.Tensor | None = None,
) -> tuple[np.ndarray, Batch]:
    """Pictures ``(B,H,W,3)`` uint8, and what they were made of."""
    jobs = [job_of(pair, method, drawing.size) for pair in pairs]
    device = torch.device(drawing.device).type
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=drawing.bfloat16):
        batch = run_batch(
            model,
            jobs,
            _VARIANTS.get(method.base, "asyndm"),
            keep_average=keep_average,
            average=average,
            control=_CONTROLS.get(method.kind),
            eta=drawing.eta,
            rival=_rival(method),
        )
    with torch.inference_mode():
        pictures = model.decode(batch.latents.float())
    return (pictures.permute(0, 2, 3, 1).cpu() * 255).round().to(torch.uint8).numpy(), batch


def _results(
    images: np.ndarray, scales: torch.Tensor, pairs: Sequence[Pair], method: Method, drawing: Drawing
) -> list[Result]:
    pictures = [Image.fromarray(image) for image in images]
    scores = LittleWorld().score(pictures, [pair.prompt for pair in pairs])
    place = Path("pictures") / method.slug
    (drawing.folder / place).mkdir(parents=True, exist_ok=True)
    results = []
    for pair, picture, found, own in zip(pairs, pictures, scores, scales.tolist(), strict=True):
        name = place / f"{pair.slug}.png"
        picture.save(drawing.folder / name, compress_level=1)
        # Of plain guidance, the method's name says it.
        told = [float(f"{scale:.4g}") for scale in own] if method.rival else []
        results.append(
            Result(pair.prompt.text, pair.seed, method.id, picture=name.as_posix(), scores=found, scales=told)
        )
    return results


def _rival(method: Method) -> Rival | None:
    return Rival(method.rival, method.rival_options) if method.rival else None


def job_of(pair: Pair, method: Method, size: int) -> Job:
    """The embedded model's job for a picture. Raises ValueError for what it cannot draw."""
    objects = method.objects(pair.prompt.objects) or tuple(map(ObjectSpec, automatic_objects(pair.prompt.text)))
    settings = {key: value for key, value in method.asyndm().items() if key != "region"}
    host = method.host
    return Job(
        prompt=pair.prompt.text,
        seed=pair.seed,
        settings=Settings.from_dict({**settings, "objects": list(objects)}),
        steps=host["steps"],
        solver=host["solver"],
        scheduler=host["scheduler"],
        guidance=host["guidance"],
        width=size,
        height=size,
    )
