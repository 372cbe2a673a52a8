"""Twenty pictures in a row: what is in memory after the twentieth was there after the second."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

pytest.importorskip("diffusers")

from support.leftovers import state, tensors
from support.tiny import job, random_model

from asyndm_ext.embedded.sampling import Job, run_variant
from asyndm_ext.ui.last_run import LastRun, Pass

PICTURES = 20
SOLVERS = ("Euler", "DPM++ 2M", "DPM++ SDE", "DDIM", "UniPC")
SLACK = 20
"""Objects that Python itself may keep: a frame, a line of a cache."""


def objects() -> Counter[str]:
    gc.collect()
    return Counter(type(one).__qualname__ for one in gc.get_objects())


def jobs() -> list[Job]:
    """Different solvers, sizes and regions, so that what is kept per kind is seen too."""
    return [
        job(
            {"region": ("objects", "everything")[number % 2], "soft": number % 3 == 0},
            solver=SOLVERS[number % len(SOLVERS)],
            width=(64, 96)[number % 2],
            seed=number,
        )
        for number in range(PICTURES)
    ]


def test_objects_and_tensors_are_as_many_as_before() -> None:
    every = jobs()
    for one in every[: len(SOLVERS) * 2]:  # what Python and torch keep of a first time
        run_variant(random_model(), one, "asyndm")
    before, hooks = objects(), state(random_model())["hooks"]
    with tensors() as alive:
        for one in every:
            run_variant(random_model(), one, "asyndm")
    assert not alive, f"tensors of twenty pictures: {dict(alive)}"
    grown = objects() - before
    assert grown.total() <= SLACK, f"objects that have stayed: {grown.most_common(10)}"
    assert state(random_model())["hooks"] == hooks


@pytest.mark.parametrize("steps", [5, 50])
def test_what_is_kept_of_the_last_run_is_bounded(steps: int) -> None:
    """Twenty jobs of the API's memory: the last one's numbers, and masks within the budget."""
    kept, size = LastRun(mask_bytes=10_000), (16, 16)
    counts = []
    for number in range(PICTURES):
        kept.forget()
        kept.begin_pass(job().settings, Pass("txt2img", 0, "Euler", "sigma", size))
        run_variant(random_model(), job(steps=steps, seed=number), "asyndm", lambda: None)
        from_steps(kept, steps)
        kept.finish_pass()
        counts.append(len([one for one in kept.answer()["passes"][0]["steps"] if one["images"][0]["mask"]]))
    assert set(counts) == {min(steps, 10_000 // 256)}


def from_steps(kept: LastRun, steps: int) -> None:
    import torch

    from asyndm_ext.run import StepRecord

    for step in range(steps):
        level = torch.full((1, 1, 16, 16), float(steps - step), dtype=torch.float64)
        kept.watch(StepRecord(step, float(steps - step), level, level / steps))
