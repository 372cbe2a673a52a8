"""The record of the last job: numbers, masks, and that it stays small."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from asyndm_ext.region.mask_image import decode, encode
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui import last_run
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
    one = run.begin_pass(Settings(enabled=True, strength=0.6), one_pass())
    one.watch(record(0))
    one.watch(record(1))
    answer = run.answer()
    assert answer is not None and answer["passes"][0]["finished"] is False
    one.finish()
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
        one = run.begin_pass(Settings(enabled=True), one_pass(kind))
        one.watch(record(0))
        one.finish()
    answer = run.answer()
    assert answer is not None and [each["kind"] for each in answer["passes"]] == ["txt2img", "hires", "adetailer"]
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
        one = run.begin_pass(Settings(enabled=True), one_pass())
        for step in range(steps):
            one.watch(record(step, torch.full(SHAPE, 0.5, dtype=torch.float64)))
        one.finish()
    total = sum(passes)
    room = budget // size
    assert kept(run) == [False] * max(total - room, 0) + [True] * min(total, room)


def test_a_map_that_stays_is_kept_once() -> None:
    run = LastRun(mask_bytes=SHAPE[0] * SHAPE[2] * SHAPE[3])
    same = torch.full(SHAPE, 0.5, dtype=torch.float64)
    one = run.begin_pass(Settings(enabled=True), one_pass())
    for step in range(50):
        one.watch(record(step, same))
    assert kept(run) == [True] * 50


def test_a_job_that_was_forgotten_in_its_midst_goes_on_unseen() -> None:
    """The API was told to keep nothing, or another job has begun: its steps are in no answer, and raise nothing."""
    run = LastRun()
    old = run.begin_pass(Settings(enabled=True, strength=0.3), one_pass())
    old.watch(record(0))
    run.forget()
    old.watch(record(1))
    assert run.answer() is None
    new = run.begin_pass(Settings(enabled=True, strength=0.9), one_pass("img2img"))
    old.watch(record(2))
    old.finish()
    new.watch(record(0))
    answer = run.answer()
    assert answer is not None and answer["settings"]["strength"] == 0.9
    assert [(one["kind"], len(one["steps"]), one["finished"]) for one in answer["passes"]] == [("img2img", 1, False)]


def test_an_answer_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps and masks of the moment of asking, whatever comes while the masks are written as pictures; and the job does
    not wait for that."""
    run = LastRun(mask_bytes=2 * SHAPE[0] * SHAPE[2] * SHAPE[3])
    first = run.begin_pass(Settings(enabled=True), one_pass())
    first.watch(record(0))
    first.finish()
    second = run.begin_pass(Settings(enabled=True), one_pass("hires"))
    second.watch(record(0))
    write, written = last_run._png, []

    def job_goes_on() -> None:
        second.watch(record(1))  # takes the place of the first mask
        second.watch(record(2))
        second.finish()
        run.forget()
        run.begin_pass(Settings(enabled=True, strength=0.1), one_pass("img2img")).watch(record(0))

    def interrupted(mask: torch.Tensor) -> str:
        if not written:
            going = threading.Thread(target=job_goes_on)
            going.start()
            going.join(timeout=20)
            written.append(not going.is_alive())
        return write(mask)

    monkeypatch.setattr(last_run, "_png", interrupted)
    answer = run.answer()
    assert written == [True]
    assert answer is not None and answer["settings"]["strength"] == Settings().strength
    assert [(one["kind"], one["finished"]) for one in answer["passes"]] == [("txt2img", True), ("hires", False)]
    images = [[step["images"] for step in one["steps"]] for one in answer["passes"]]
    assert [len(steps) for steps in images] == [1, 1]
    assert all(image["mask"] for steps in images for step in steps for image in step)
    after = run.answer()
    assert after is not None and [one["kind"] for one in after["passes"]] == ["img2img"]


def test_old_passes_go() -> None:
    run = LastRun(max_passes=3)
    for iteration in range(10):
        one = run.begin_pass(Settings(enabled=True), one_pass(iteration=iteration))
        one.watch(record(0))
    answer = run.answer()
    assert answer is not None and [one["iteration"] for one in answer["passes"]] == [7, 8, 9]
