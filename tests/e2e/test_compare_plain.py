"""Compare with plain, over the API of the real WebUI: the plain pictures are those that a plain job makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, Pictures, WebUI
from .test_asyndm import SETTINGS, asyndm, difference, nothing_left, off, on
from .test_regions import box, paint

pytestmark = pytest.mark.xdist_group("webui")

SMALL = {"width": 128, "height": 192, "steps": 4}
COMPARE = {**SETTINGS, "compare_plain": True}
PLAIN = "AsynDM: plain picture for comparison"
GRID = {"save_images": True, "override_settings": {"return_grid": True}}


def same(pictures: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(pictures) == len(others) and all(map(np.array_equal, pictures, others))


def texts(result: Pictures) -> list[str]:
    return list(result.info["infotexts"])


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM"])
def test_the_pictures_of_two_jobs(webui: WebUI, sampler: str) -> None:
    """Also of samplers that draw noise, for each batch its own."""
    batches = {**SMALL, "sampler_name": sampler, "batch_size": 2, "n_iter": 2}
    plain, ours = off(webui, "tiny-sd1", **batches), on(webui, "tiny-sd1", SETTINGS, **batches)
    both = on(webui, "tiny-sd1", COMPARE, **batches)
    assert same(both.images, [*ours.images, *plain.images])
    assert difference(both.images[0], both.images[4]) > 10
    assert [text.split("Seed: ")[1].split(",")[0] for text in texts(both)] == ["1", "2", "3", "4"] * 2
    assert all(f"{PLAIN}, " in text and text.count("AsynDM") == 1 for text in texts(both)[4:])
    assert all("AsynDM compare with plain: True" in text and PLAIN not in text for text in texts(both)[:4])
    nothing_left(webui)
    assert same(off(webui, "tiny-sd1", **batches).images, plain.images)
    assert webui.get("/asyndm/v1/last-run?masks=false") is None or len(texts(both)) == 8


def test_the_last_run_is_of_asyndm_s_passes(webui: WebUI) -> None:
    on(webui, "tiny-sd1", COMPARE, **SMALL, n_iter=2)
    passes = webui.get("/asyndm/v1/last-run?masks=false")["passes"]
    assert [one["iteration"] for one in passes] == [0, 1]


def test_shown_pictures_come_after_the_plain_ones(webui: WebUI) -> None:
    shown = on(webui, "tiny-sd1", {**COMPARE, "show": "mask"}, **SMALL, n_iter=2)
    assert len(shown.images) == 6 and [PLAIN in text for text in texts(shown)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert texts(shown)[4:] == texts(shown)[:2]
    alone = on(webui, "tiny-sd1", {**SETTINGS, "show": "mask"}, **SMALL, n_iter=2)
    assert same(shown.images[4:], alone.images[2:])


def test_hires_fix(webui: WebUI) -> None:
    request = {**SMALL, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    request["hr_prompt"] = "a blue cat eating a sandwich"
    plain, ours = off(webui, "tiny-sd1", **request), on(webui, "tiny-sd1", SETTINGS, **request)
    both = on(webui, "tiny-sd1", COMPARE, **request)
    assert same(both.images, [*ours.images, *plain.images])


def test_inpainting(webui: WebUI) -> None:
    mask = box(64, 96, 160, 192)
    settings = {"region": "mask"}
    plain, ours = paint(webui, mask, None), paint(webui, mask, settings)
    both = paint(webui, mask, {**settings, "compare_plain": True})
    assert same(both.images, [*ours.images, *plain.images])


def test_the_grid_has_all_of_them_and_the_job_s_settings(webui: WebUI) -> None:
    both = on(webui, "tiny-sd1", COMPARE, **SMALL, **GRID)
    assert both.info["index_of_first_image"] == 1 and len(both.images) == 3
    if webui.kind == "reforge":  # it asks for the grid's text as for its last picture's
        assert texts(both)[0] == texts(both)[2] and PLAIN in texts(both)[2] and PLAIN not in texts(both)[1]
        return
    assert "AsynDM strength: 0.7" in texts(both)[0] and PLAIN not in texts(both)[0]
    assert texts(both)[0] == texts(both)[1] and PLAIN in texts(both)[2]


def test_an_interrupt_leaves_what_there_is(webui: WebUI) -> None:
    alone = on(webui, "tiny-sd1", SETTINGS, **SMALL)
    request = {**SMALL, "prompt": alone.info["prompt"]}
    plain = off(webui, "tiny-sd1", **SMALL)
    one = webui.txt2img(**request, **asyndm(COMPARE, probe={"interrupt_at": 2}))
    assert len(one.images) == 1 and PLAIN not in one.infotext
    two = webui.txt2img(**request, **asyndm(COMPARE, probe={"interrupt_at": 6}))
    assert len(two.images) == 2 and np.array_equal(two.images[0], alone.image)
    assert not np.array_equal(two.images[1], plain.image) and PLAIN in texts(two)[1]
    nothing_left(webui)
    assert same(off(webui, "tiny-sd1", **SMALL).images, plain.images)


def test_a_script_s_grid_is_made_of_results_only(webui: WebUI) -> None:
    request = {**SMALL, "prompt": "a cat|red", "script_name": "prompt matrix"}
    arguments = {"script_args": [False, False, "positive", "comma", 0]}
    settings = {"region": "everything"}
    plain = on(webui, "tiny-sd1", settings, **request, **arguments)
    both = on(webui, "tiny-sd1", {**settings, "compare_plain": True}, **request, **arguments)
    assert same(both.images, plain.images)


def test_no_plain_picture_twice(webui: WebUI) -> None:
    """In the hires pass only, and there is none: the picture is plain already."""
    result = on(webui, "tiny-sd1", {**COMPARE, "hires": "hires"}, **SMALL)
    assert same(result.images, off(webui, "tiny-sd1", **SMALL).images)
    assert "AsynDM: not applied: it is set to the hires pass" in result.infotext.replace('"', "")


@pytest.mark.parametrize("name", ["aa-detailer", "zz-detailer"])
def test_adetailer_s_passes_of_a_plain_picture_are_plain(launch: Callable[..., WebUI], name: str) -> None:
    detailer = Path(__file__).resolve().parent / "detailer_extension"
    extensions = {"aa-detailer": detailer, "asyndm": REPOSITORY, "zz-detailer": detailer, "asyndm-e2e-probe": PROBE}
    webui = _detailing(launch, extensions)

    def job(settings: dict | None) -> Pictures:
        scripts = {name: {"args": ["a cat", True]}, "asyndm prompts": {"args": [""]}}
        if settings is not None:
            scripts["AsynDM"] = {"args": [{**settings, "adetailer": True}]}
        request = {"prompt": "a cat eating a sandwich", "sampler_name": "Euler a", "seed": 3, **SMALL}
        return webui.txt2img("tiny-sd1", **request, alwayson_scripts=scripts)

    objects = {"objects": "cat"}
    plain, ours, both = job(None), job(objects), job({**objects, "compare_plain": True})
    assert same(both.images, [*ours.images, *plain.images])
    assert PLAIN in texts(both)[1] and texts(both)[1].count("AsynDM") == 1


_started: dict[str, WebUI] = {}


def _detailing(launch: Callable[..., WebUI], extensions: dict[str, Path]) -> WebUI:
    if "it" not in _started:
        _started["it"] = launch("comparing-details", extensions=extensions)
    return _started["it"]
