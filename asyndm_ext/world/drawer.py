"""Scenes drawn by other processes, ahead of the training that will ask for them.

Drawing a scene takes a processor 8 ms, and a GPU has trained on it in less. A scene follows from its seed and number,
so it makes no difference who draws it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

from asyndm_ext.machine.workers import deaf_children, end_with
from asyndm_ext.world.scenes import Scene, scene_from_seed

T = TypeVar("T")


def scenes_of(seed: int, numbers: range) -> list[Scene]:
    """The scenes of these numbers, drawn here and now."""
    return [scene_from_seed(seed, number) for number in numbers]


class Drawer:
    """Draws scenes in ``processes`` processes of its own; 0: in this one, when they are asked for.

    What comes back is the scenes, or what another function makes of a seed and numbers, at the top of a module.

    A context manager: its processes end with the block, and with this process however it ends. Afterwards scenes are
    drawn in this process.
    """

    def __init__(self, processes: int = 0) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._begun: dict[tuple[Callable[..., Any], int, range], Future[Any]] = {}
        self.ahead = 2 * processes
        """How many askings it likes to know beforehand, so that no process waits."""
        if processes:
            # "spawn": a forked torch may wait forever for threads that were not forked.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(processes, context, initializer=end_with, initargs=(os.getpid(),))

    def __enter__(self) -> Drawer:
        return self

    def __exit__(self, *error: object) -> None:
        executor, self._executor, self.ahead = self._executor, None, 0
        self._begun.clear()
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def begin(self, seed: int, some: Iterable[range], make: Callable[[int, range], Any] = scenes_of) -> None:
        """Have these drawn, if there is a process for it; each has to be asked for with :meth:`made` later."""
        if self._executor is None:
            return
        for numbers in some:
            if (make, seed, numbers) not in self._begun:
                with deaf_children():
                    self._begun[make, seed, numbers] = self._executor.submit(make, seed, numbers)

    def scenes(self, seed: int, numbers: range) -> list[Scene]:
        """The scenes of these numbers, as :meth:`made` has them."""
        return self.made(seed, numbers, scenes_of)

    def made(self, seed: int, numbers: range, make: Callable[[int, range], T]) -> T:
        """What is made of these numbers; waits for it where it has been begun.

        Raises:
            BrokenProcessPool: a process was killed.
        """
        begun = self._begun.pop((make, seed, numbers), None)
        return make(seed, numbers) if begun is None else begun.result()
