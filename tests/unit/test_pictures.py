"""The pictures beside the results: what they show, how many, whose infotext."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.hosts.webui import pictures
from asyndm_ext.picture.drawing import CLOCK_COLOURS, NOISIEST, clock_colours
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui.pictures import Recorder, labelled, written

SIZE = (12, 16)  # of the latent, height and width
STEPS = 5
SIGMAS = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.3, 0.0], dtype=torch.float64)


def records(images: int = 2) -> list[StepRecord]:
    """A run in which the left half of image 0 and the top quarter of image 1 are slow."""
    strength = torch.zeros(images, 1, *SIZE, dtype=torch.float64)
    strength[0, :, :, : SIZE[1] // 2] = 0.8
    strength[1:, :, : SIZE[0] // 4] = 0.8
    schedule = PixelSchedule(BaseSchedule.from_sigmas(SIGMAS), tuple(strength.shape), "quadratic")  # type: ignore
    made = []
    for step in range(STEPS):
        made.append(StepRecord(step, schedule.nominal, schedule.level, strength))
        schedule.advance(strength)
    return made


def recorder(show: str) -> Recorder:
    made = Recorder(Settings(enabled=True, strength=0.8, show=show))
    for record in records():
        made.watch(record)
    return made


def image() -> Image.Image:
    return Image.new("RGB", (8 * SIZE[1], 8 * SIZE[0]), (200, 180, 90))


def test_the_mask_is_tinted_where_pixels_are_slow() -> None:
    for index, slow in ((0, np.s_[:, :64]), (1, np.s_[:24, :])):
        ((kind, picture),) = recorder("mask").pictures(image(), index)
        pixels = np.array(picture)[:96].astype(int)
        assert kind == "mask" and picture.width == 128 and picture.height > 96
        tinted = pixels[..., 0] - pixels[..., 2] > 60
        expected = np.zeros((96, 128), dtype=bool)
        expected[slow] = True
        assert np.array_equal(tinted, expected)


def test_the_clock_is_of_the_step_where_the_pixels_are_furthest_apart() -> None:
    ((_, picture),) = recorder("clock").pictures(image(), 0)
    pixels = np.array(picture)[:96]
    made = recorder("clock")
    lags = [float((made._left(r.level[0, 0]) - made._left(torch.tensor(r.nominal))).max()) for r in records()]
    step = int(np.argmax(lags))
    assert 0 < step < STEPS and lags[step] > 0.1
    left = made._left(records()[step].level[0, 0])
    assert float(left[0, -1]) == pytest.approx(1 - step / STEPS)
    assert float(left[0, 0]) == pytest.approx(1 - step / STEPS + lags[step])
    assert np.array_equal(pixels[::8, ::8], clock_colours(left * NOISIEST))


def test_levels_are_shown_as_what_is_left_of_the_schedule() -> None:
    made = recorder("clock")
    left = made._left(torch.tensor([10.0, 7.5, 5.0, 2.0, 1.0, 0.3, 0.0, 11.0]))
    assert left.tolist() == pytest.approx([1.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0, 1.0], abs=1e-6)
    assert tuple(clock_colours(torch.tensor(0.0))) == CLOCK_COLOURS[0]


def test_the_filmstrip_has_a_column_for_each_step() -> None:
    ((kind, page),) = recorder("filmstrip").pictures(image(), 0)
    assert kind == "filmstrip"
    assert page.width > STEPS * 128
    assert len(set(np.array(page).reshape(-1, 3)[:, 0].tolist())) > 20


def test_all_and_only_what_is_shown_is_kept() -> None:
    assert [kind for kind, _ in recorder("all").pictures(image(), 1)] == ["mask", "clock", "filmstrip"]
    assert recorder("mask")._levels == [] and recorder("mask")._strengths == []
    assert recorder("clock")._strengths == [] and len(recorder("clock")._levels) == STEPS
    assert Recorder(Settings(show="all")).pictures(image(), 0) == []


class Job:
    """As much of the host's job as the pictures need."""

    def __init__(self, batch_size: int = 2, script: int = 0) -> None:
        self.batch_size, self.iteration, self.batch_index = batch_size, 0, 0
        self.script_args = [script, True]
        self.comments: list[str] = []
        self.all_seeds, self.all_prompts = [1, 2, 3, 4], ["a", "b", "c", "d"]
        self.outpath_samples = "out"

    def comment(self, text: str) -> None:
        self.comments.append(text)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A host that notes what it is asked to save."""
    files: list[dict[str, Any]] = []
    images, shared, modules = ModuleType("modules.images"), ModuleType("modules.shared"), ModuleType("modules")

    def save_image(picture: Any, path: str, basename: str, seed: int, prompt: str, form: str, **rest: Any) -> None:
        files.append({"seed": seed, "prompt": prompt, "path": path, **rest})

    images.save_image = save_image  # type: ignore[attr-defined]
    shared.opts = SimpleNamespace(enable_pnginfo=True, samples_format="png")  # type: ignore[attr-defined]
    modules.images, modules.shared = images, shared  # type: ignore[attr-defined]
    for module in (images, shared, modules):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return files


def run(job: Job, batches: int, grid: bool = False, **settings: Any) -> Any:
    """A job of so many batches of two."""
    for iteration in range(batches):
        job.iteration = iteration
        pictures.begin(job)
        for watch in pictures.recorders(job, Settings(enabled=True, **settings)):
            for record in records():
                watch(record)
        for index in range(job.batch_size):
            job.batch_index = index
            pictures.draw(job, image())
    count = batches * job.batch_size
    results, texts = [image() for _ in range(count)], [f"text {number}" for number in range(count)]
    if grid:
        results, texts = [image(), *results], ["text of the grid", *texts]
    processed = SimpleNamespace(images=results, infotexts=texts, info=texts[0], index_of_first_image=int(grid))
    pictures.attach(job, processed)
    return processed


@pytest.mark.parametrize("grid", [False, True])
def test_they_come_after_the_results_with_the_infotext_of_their_image(saved: list, grid: bool) -> None:
    processed = run(Job(), 2, grid, show="all")
    results = 4 + grid
    assert len(processed.images) == len(processed.infotexts) == results + 4 * 3
    assert processed.infotexts[results:] == [f"text {number}" for number in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert processed.index_of_first_image == int(grid)
    assert [p.info.get("parameters") for p in processed.images[results:]] == processed.infotexts[results:]
    assert all(picture.size == image().size for picture in processed.images[:results])
    assert saved == []


def test_none_by_default(saved: list) -> None:
    processed = run(Job(), 2)
    assert len(processed.images) == 4 and len(processed.infotexts) == 4


def test_they_are_saved_where_that_is_asked_for(saved: list) -> None:
    run(Job(), 2, show="clock", save_shown=True)
    assert [(file["seed"], file["prompt"], file["suffix"]) for file in saved] == [
        (seed, prompt, "-asyndm-clock") for seed, prompt in zip((1, 2, 3, 4), "abcd", strict=True)
    ]
    assert [file["info"] for file in saved] == ["text 0", "text 1", "text 2", "text 3"]


def test_a_script_s_grid_gets_none_and_the_user_is_told(saved: list) -> None:
    job = Job(script=3)
    processed = run(job, 1, show="mask", save_shown=True)
    assert len(processed.images) == 2 and len(saved) == 2
    assert "Script menu" in job.comments[0]


def test_a_batch_without_a_pass_of_ours_has_none(saved: list) -> None:
    """The second batch falls back to the host's sampler: the first one's maps are not its own."""
    job = Job()
    pictures.begin(job)
    for watch in pictures.recorders(job, Settings(show="mask")):
        watch(records()[0])
    pictures.draw(job, image())
    job.iteration = 1
    pictures.begin(job)
    pictures.draw(job, image())
    assert [number for number, _, _ in job.asyndm_pictures] == [0]  # type: ignore[attr-defined]


def test_the_hires_pass_may_leave_the_first_one_s_as_they_are(saved: list) -> None:
    job = Job()
    pictures.begin(job)
    (watch,) = pictures.recorders(job, Settings(show="mask"))
    watch(records()[0])
    job.is_hr_pass = True  # type: ignore[attr-defined]
    pictures.begin(job)
    pictures.draw(job, image())
    assert len(job.asyndm_pictures) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (128, 96), (64, 64), (8, 8)])
def test_a_message_as_a_picture(width: int, height: int) -> None:
    """In letters that fit, so that nothing stands at the edge."""
    picture = written("AsynDM: Start must be less than End, but they are 0.6 and 0.4", width, height)
    pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (height, width) and pixels.max() > 240
    if width > 64:
        assert pixels.min() < 100
        assert pixels[[0, -1]].min() > 240 and pixels[:, [0, -1]].min() > 240


def test_a_label_covers_the_lower_edge_alone() -> None:
    image = Image.new("RGB", (256, 128), (10, 20, 200))
    image.info["parameters"] = "a cat"
    marked = labelled(image, "AsynDM: not applied: the schedule has no sigmas")
    pixels = np.asarray(marked)
    assert (pixels[:90] == (10, 20, 200)).all() and pixels[-4:].min() > 200
    assert marked.info == {"parameters": "a cat"} and image.getpixel((5, 125)) == (10, 20, 200), "a picture of its own"
