"""Sampling for the page: in a thread of its own, so that it can be watched while it runs, and stopped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from asyndm_ext.embedded.job import Job, Variant
from asyndm_ext.embedded.rows import judged_at
from asyndm_ext.embedded.sampling import Result, count_of_all, run_variant
from asyndm_ext.embedded.threads import threads_for
from asyndm_ext.picture.drawing import to_picture
from asyndm_ext.world.judge import Judge, verdict
from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.telling import faults
from asyndm_ext.world.words import read

_PAUSE = 0.2  # seconds between two looks at a running picture


class Interrupted(Exception):
    """Somebody has stopped the drawing."""


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        variant: which picture is being drawn.
        step, total: steps of all pictures together.
        pictures: those that are finished, and what the model expects the one in work to become.
    """

    variant: Variant
    step: int
    total: int
    pictures: dict[Variant, Image.Image]


@dataclass(frozen=True)
class Outcome:
    """All of it, finished.

    Attributes:
        faults: what is wrong with each picture, in words; none of a picture that shows what the prompt says. Pictures
            that nobody has judged are not in it.
    """

    job: Job
    results: dict[Variant, Result]
    pictures: dict[Variant, Image.Image]
    faults: dict[Variant, list[str]]

    @property
    def note(self) -> str | None:
        """What the user should know about it."""
        ours = self.results.get("asyndm")
        return ours.note if ours is not None else None


class Engine:
    """The model, lent to one drawing at a time.

    Args:
        model: draws.
        judge: looks at the pictures; None: nobody does.
    """

    def __init__(self, model: WorldModel, judge: Judge | None = None) -> None:
        self.model = model
        self._judge = judge
        self._free = threading.Lock()

    def picture(self, latent: Tensor) -> Image.Image:
        """Of ``(1,C,H,W)``."""
        return to_picture(self.model.decode(latent.to(self.model.device))[0])

    def faults(self, job: Job, latent: Tensor) -> list[str] | None:
        """What is wrong with the picture of ``(1,C,H,W)``, in words; None where it cannot be judged, which is so for
        all sizes but that of the true scenes."""
        if self._judge is None or not judged_at(job):
            return None
        (seen,) = self._judge.see(self.model.decode(latent.to(self.model.device)).cpu())
        text = read(job.prompt).text
        return faults(seen, text, verdict(seen, text))

    def draw(self, job: Job, variants: Sequence[Variant], stop: threading.Event) -> Iterator[Progress | Outcome]:
        """Draw a job on each of these clocks.

        Args:
            stop: ends it at the next step; also set when the iterator is closed before its end.

        Yields:
            :class:`Progress` a few times a second, and at last the :class:`Outcome`.

        Raises:
            Interrupted: ``stop`` was set.
            Exception: whatever went wrong.
        """
        messages: queue.SimpleQueue[Progress | Outcome | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                with self._free, threads_for(job.width * job.height):
                    messages.put(_Drawing(self, job, variants, stop, messages).run())
            except BaseException as error:  # whatever it is, somebody is waiting for an answer
                messages.put(error)

        worker = threading.Thread(target=work, name="asyndm-drawing", daemon=True)
        worker.start()
        try:
            while True:
                message = messages.get()
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, BaseException):
                    raise RuntimeError(f"the drawing was ended by {type(message).__name__}") from message
                yield message
                if isinstance(message, Outcome):
                    return
        finally:
            stop.set()
            worker.join()


class _Drawing:
    """One job at work."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        variants: Sequence[Variant],
        stop: threading.Event,
        messages: queue.SimpleQueue[Progress | Outcome | BaseException],
    ) -> None:
        self._engine, self._job, self._variants = engine, job, variants
        self._stop, self._messages = stop, messages
        self._total = count_of_all(engine.model, job, variants)
        self._step = 0
        self._told = -_PAUSE
        self._pictures: dict[Variant, Image.Image] = {}

    def run(self) -> Outcome:
        results = {variant: self._one(variant) for variant in self._variants}
        judged = {variant: self._engine.faults(self._job, result.latent) for variant, result in results.items()}
        said = {variant: found for variant, found in judged.items() if found is not None}
        return Outcome(self._job, results, self._pictures, said)

    def _one(self, variant: Variant) -> Result:
        newest: list[Tensor] = []

        def predicted(latent: Tensor) -> None:
            newest[:] = [latent]

        def stepped() -> None:
            if self._stop.is_set():
                raise Interrupted
            self._step += 1
            if time.monotonic() - self._told >= _PAUSE:
                if newest:
                    self._pictures[variant] = self._engine.picture(newest[0])
                self._messages.put(Progress(variant, self._step, self._total, dict(self._pictures)))
                self._told = time.monotonic()

        result = run_variant(self._engine.model, self._job, variant, stepped, predicted)
        self._pictures[variant] = self._engine.picture(result.latent)
        self._messages.put(Progress(variant, self._step, self._total, dict(self._pictures)))
        return result
