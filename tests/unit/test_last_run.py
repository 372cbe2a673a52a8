"""The record of the last job: numbers, masks, and that it stays small."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from asyndm_ext.mask_image import decode, encode
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui.last_run import LastRun, Pass
from asyndm_ext.ui.schema import LAST_RUN_ANSWER

SHAPE = (2, 1, 4, 6)


def one_pass(kind: str = "txt2img", iteration: int = 0) -> Pass:
    return Pass(kind, iteration, "Euler a", "sigma", (4, 6), [["cat"], ["dog", "hat"]])


def record(step: int, strength: torch.Tensor | None = None) -> StepRecord:
    if strength is None:
        strength = torch.zeros(SHAPE, dtype=torch.float64)
        strength[0, 0, :2] = 0.6
        strength[1, 0, 0, 0] = 1.0
    return StepRecord(step, 5.0 - step, 5.0 - step + strength, strength)


def test_nothing_before_the_first_job() -> None:
    assert LastRun().answer() is None


def test_numbers_and_masks() -> None:
    run = LastRun()
    run.begin_pass(Settings(enabled=True, strength=0.6), one_pass())
    run.watch(record(0))
    run.watch(record(1))
    answer = run.answer()
    assert answer is not None and answer["passes"][0]["finished"] is False
    run.finish_pass()
    answer = json.loads(json.dumps(run.answer()))
    Draft202012Validator(LAST_RUN_ANSWER).validate(answer)
    assert answer["settings"]["strength"] == 0.6
    (only,) = answer["passes"]
    assert only["finished"] is True and only["size"] == [4, 6] and only["objects"] == [["cat"], ["dog", "hat"]]
    first, second = only["steps"][1]["images"]
    assert (first["smallest"], first["largest"], first["slow"]) == pytest.approx((4.0, 4.6, 0.5))
    assert (second["smallest"], second["largest"], second["slow"]) == pytest.approx((4.0, 5.0, 1 / 24))
    assert only["steps"][1]["base"] == 4.0
    mask = np.array(decode(first["mask"]))
    assert mask.shape == (4, 6)
    assert np.all(mask[:2] == 153) and np.all(mask[2:] == 0), "0.6 of 255"
    without = run.answer(masks=False)
    assert without is not None and all(i["mask"] is None for s in without["passes"][0]["steps"] for i in s["images"])


def test_a_given_mask_is_not_repeated() -> None:
    run = LastRun()
    mask = encode(Image.new("L", (64, 64), 255))
    run.begin_pass(Settings(enabled=True, mask=mask, region="mask"), one_pass())
    answer = run.answer()
    assert answer is not None and answer["settings"]["mask"].startswith("sha256:")


def test_a_new_job_begins_anew_and_passes_add_up() -> None:
    run = LastRun()
    for kind in ("txt2img", "hires", "adetailer"):
        run.begin_pass(Settings(enabled=True), one_pass(kind))
        run.watch(record(0))
        run.finish_pass()
    answer = run.answer()
    assert answer is not None and [one["kind"] for one in answer["passes"]] == ["txt2img", "hires", "adetailer"]
    run.forget()
    assert run.answer() is None
    run.begin_pass(Settings(enabled=True, strength=0.1), one_pass())
    answer = run.answer()
    assert answer is not None and answer["settings"]["strength"] == 0.1 and len(answer["passes"]) == 1


def kept(run: LastRun) -> list[bool]:
    answer = run.answer()
    assert answer is not None
    return [step["images"][0]["mask"] is not None for one in answer["passes"] for step in one["steps"]]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(48, 400))
def test_masks_stay_within_the_budget_and_the_newest_stay(passes: list[int], budget: int) -> None:
    run = LastRun(mask_bytes=budget)
    size = SHAPE[0] * SHAPE[2] * SHAPE[3]
    for steps in passes:
        run.begin_pass(Settings(enabled=True), one_pass())
        for step in range(steps):
            run.watch(record(step, torch.full(SHAPE, 0.5, dtype=torch.float64)))
        run.finish_pass()
    total = sum(passes)
    room = budget // size
    assert kept(run) == [False] * max(total - room, 0) + [True] * min(total, room)


def test_a_map_that_stays_is_kept_once() -> None:
    run = LastRun(mask_bytes=SHAPE[0] * SHAPE[2] * SHAPE[3])
    same = torch.full(SHAPE, 0.5, dtype=torch.float64)
    run.begin_pass(Settings(enabled=True), one_pass())
    for step in range(50):
        run.watch(record(step, same))
    assert kept(run) == [True] * 50


def test_old_passes_go() -> None:
    run = LastRun(max_passes=3)
    for iteration in range(10):
        run.begin_pass(Settings(enabled=True), one_pass(iteration=iteration))
        run.watch(record(0))
    answer = run.answer()
    assert answer is not None and [one["iteration"] for one in answer["passes"]] == [7, 8, 9]
