"""Scenes drawn by other processes: the same ones, and no process is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from support.tiny import fresh_model

from asyndm_ext.world.blocks import block_of
from asyndm_ext.world.drawer import Drawer, scenes_of
from asyndm_ext.world.pool import Batch, ScenePool
from asyndm_ext.world.trainers import DecoderTrainer, TrainSettings

ROOT = Path(__file__).resolve().parents[2]


def pool_after(steps: list[int], drawer: Drawer | None) -> Batch:
    pool = ScenePool(fresh_model(), 3, blocks=3, block=2, refresh=2, drawer=drawer)
    for step in steps:
        pool.advance(step)
    return pool.batch(torch.arange(len(pool)))


def losses(drawer: Drawer | None) -> list[torch.Tensor]:
    trainer = DecoderTrainer(fresh_model().requires_grad_(True), TrainSettings(decoder_batch=2), drawer)
    return [trainer.train_step() for _ in range(3)]


def test_it_makes_no_difference_who_draws() -> None:
    steps = [0, 1, 2, 3, 7, 20]  # with a jump, as after a checkpoint
    here, first = pool_after(steps, None), losses(None)
    others = set(multiprocessing.active_children())
    for processes in (1, 2):
        with Drawer(processes) as drawer:
            there = pool_after(steps, drawer)
            for name, value in vars(here).items():
                assert torch.equal(value, getattr(there, name)), (processes, name)
            assert losses(drawer) == first
            workers = set(multiprocessing.active_children()) - others
            assert len(workers) == processes
        assert not any(worker.is_alive() for worker in workers)
        assert set(multiprocessing.active_children()) <= others
        assert np.array_equal(drawer.scenes(3, range(2))[1].image, scenes_of(3, range(2))[1].image), "drawn here now"


def test_they_draw_what_comes_next() -> None:
    """What a step asks for was begun in the step before, and nothing is drawn twice."""
    asked = []

    class Watched(Drawer):
        def begin(self, seed, some, make):
            some = list(some)
            asked.extend(numbers for numbers in some if (make, seed, numbers) not in self._begun)
            super().begin(seed, some, make)

    with Watched(1) as drawer:
        pool = ScenePool(fresh_model(), 3, blocks=3, block=1, refresh=1, drawer=drawer)
        for step in range(4):
            pool.advance(step)
            assert (block_of, 3, range(step + 3, step + 4)) in drawer._begun
            assert len(drawer._begun) == drawer.ahead == 2
    assert [numbers.start for numbers in asked] == list(range(8))


def test_a_killed_process_is_an_error() -> None:
    with Drawer(1) as drawer:
        drawer.begin(3, [range(1)])
        assert len(drawer.scenes(3, range(1))) == 1
        for worker in multiprocessing.active_children():
            worker.kill()
        with pytest.raises(BrokenProcessPool):
            for number in range(1, 100):
                drawer.begin(3, [range(number, number + 1)])
                drawer.scenes(3, range(number, number + 1))


PROGRAM = """
import multiprocessing, os, signal, sys, time
from asyndm_ext.world.drawer import Drawer

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
if __name__ == "__main__":
    with Drawer(2) as drawer:
        drawer.begin(1, [range(1), range(1, 2)])
        drawer.scenes(1, range(1)), drawer.scenes(1, range(1, 2))
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        drawer.begin(1, [range(100 * i, 100 * i + 40) for i in range(1, 20)])
        time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl+C", "killed"])
def test_no_process_outlives_the_training(how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    main = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert main.stdout is not None
        workers = [int(pid) for pid in main.stdout.readline().split()]
        assert len(workers) == 2 and all(alive(pid) for pid in workers)
        # A terminal sends Ctrl+C to all processes of the group; a kill hits one.
        (os.killpg if how == signal.SIGINT else os.kill)(main.pid, how)
        _, errors = main.communicate(timeout=60)
        assert main.returncode != 0
        assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0), "the processes say nothing of their own"
        deadline = time.monotonic() + 30
        while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not any(alive(pid) for pid in workers)
    finally:
        main.kill()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # of a container whose first process collects no children
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
