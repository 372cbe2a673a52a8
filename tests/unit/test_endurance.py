"""Twenty pictures in a row: what is in memory after the twentieth was there after the second."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import torch

pytest.importorskip("diffusers")

from support.leftovers import state, tensors
from support.tiny import job, random_model

from asyndm_ext.embedded.job import Job
from asyndm_ext.embedded.sampling import run_variant
from asyndm_ext.run import StepRecord
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


def draw(every: list[Job]) -> None:
    for one in every:
        run_variant(random_model(), one, "asyndm")


def test_objects_and_tensors_are_as_many_as_before() -> None:
    every, hooks = jobs(), state(random_model())["hooks"]
    with tensors() as alive:
        draw(every)
    assert not alive, f"tensors of twenty pictures: {dict(alive)}"
    before = objects()
    draw(every)
    grown = objects() - before
    assert grown.total() <= SLACK, f"objects that have stayed: {grown.most_common(10)}"
    assert state(random_model())["hooks"] == hooks


@pytest.mark.parametrize("steps", [5, 50])
def test_what_is_kept_of_the_last_run_is_bounded(steps: int) -> None:
    """Twenty jobs of the API's memory: the last one's numbers, and masks within the budget."""
    kept, size, budget = LastRun(mask_bytes=10_000), (16, 16), 10_000
    for number in range(PICTURES):
        kept.forget()
        recording = kept.begin_pass(job(seed=number).settings, Pass("txt2img", 0, "Euler", "sigma", size))
        for step in range(steps):
            level = torch.full((1, 1, *size), float(steps - step), dtype=torch.float64)
            recording.watch(StepRecord(step, float(steps - step), level, level / steps))
        recording.finish()
        answer = kept.answer()
        assert answer is not None
        (one,) = answer["passes"]
        masks = [step for step in one["steps"] if step["images"][0]["mask"]]
        assert (len(one["steps"]), len(masks)) == (steps, min(steps, budget // 256))
