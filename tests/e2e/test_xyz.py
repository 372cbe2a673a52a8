"""The X/Y/Z plot: what each cell is, what its infotext says, and that nothing stays (scenario 43)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asyndm_ext.settings import FIELDS

from .server import ApiError, Pictures, WebUI, to_base64
from .test_asyndm import PROMPT, SETTINGS, asyndm, levels, off, on
from .test_regions import picture

pytestmark = pytest.mark.xdist_group("webui")

SMALL = {"width": 128, "height": 128, "steps": 5, "prompt": PROMPT, "sampler_name": "Euler a"}


def plot_args(webui: WebUI, x: tuple[str, list], y: tuple[str, list] = ("Nothing", []), img2img: bool = False) -> list:
    """The plot's arguments; an axis is the number of its label, and its values are text or, with choices, a list."""
    infos = webui.get("/sdapi/v1/script-info")
    plot = next(info for info in infos if info["name"] == "x/y/z plot" and info["is_img2img"] is img2img)
    labels = plot["args"][0]["choices"]
    args: list[Any] = []
    for label, values in (x, y, ("Nothing", [])):
        line = io.StringIO()
        csv.writer(line).writerow(values)
        args += [labels.index(label), line.getvalue().strip(), []]
    # Legend off, with single pictures, values as text; by name, as each WebUI has more of them, in an order of its own.
    wanted = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    rest = {one["label"]: one["value"] for one in plot["args"][len(args) :]}
    assert set(wanted) < set(rest)
    return [*args, *{**rest, **wanted}.values()]


def plot(
    webui: WebUI, x: tuple[str, list], y: tuple[str, list] = ("Nothing", []), settings: Any = None, **request: Any
):
    """The cells' pictures and infotexts, row by row; ``settings`` are the panel's, by default closed."""
    args = plot_args(webui, x, y)
    settings = {**SETTINGS, "enabled": False} if settings is None else settings
    scripts = {"script_name": "x/y/z plot", "script_args": args, **asyndm(settings)}
    result = webui.txt2img("tiny-sd1", **{**SMALL, **scripts, **request})
    return result.images[1:], result.info["infotexts"][1:]


def alone(webui: WebUI, settings: dict | None, **request: Any) -> Pictures:
    job = {**SMALL, **request}
    return off(webui, "tiny-sd1", **job) if settings is None else on(webui, "tiny-sd1", settings, **job)


def entries(infotext: str) -> list[str]:
    """Without what the plot and the version add; in any order, as cells share the dictionary of what others add."""
    return sorted(infotext.split(", Script:", maxsplit=1)[0].split(", Version", maxsplit=1)[0].split(", "))


def test_the_comparison(webui: WebUI) -> None:
    """Each cell is the picture, and has the infotext, of a job of its own; the panel may be closed."""
    images, infotexts = plot(webui, ("[AsynDM] Comparison", ["plain", "concave", "AsynDM", "fixed mask"]))
    assert len(images) == 4
    expected = [
        None,
        {**SETTINGS, "region": "everything"},
        SETTINGS,
        {**SETTINGS, "mask_source": "fixed"},
    ]
    for image, infotext, settings in zip(images, infotexts, expected, strict=True):
        job = alone(webui, settings)
        assert np.array_equal(image, job.image)
        assert entries(infotext) == entries(job.infotext)
        assert ("AsynDM" in infotext) is (settings is not None)
    different = {image.tobytes() for image in images}
    assert len(different) == 4


def test_nothing_leaks_into_the_next_job(webui: WebUI) -> None:
    before = alone(webui, SETTINGS), alone(webui, None)
    plot(webui, ("[AsynDM] Strength", ["0.2", "0.9"]), ("[AsynDM] Curve", ["exponential"]))
    plot(webui, ("[AsynDM] Enabled", ["True", "False"]), settings=SETTINGS)
    after = alone(webui, SETTINGS), alone(webui, None)
    assert [job.png for job in after] == [job.png for job in before]
    assert [job.infotext for job in after] == [job.infotext for job in before]


def test_two_axes(webui: WebUI) -> None:
    """Ranges too: 0.2-0.8 [2] is 0.2 and 0.8."""
    curves = ["piecewise linear", "quadratic"]
    images, infotexts = plot(webui, ("[AsynDM] Strength", ["0.2-0.8 [2]"]), ("[AsynDM] Curve", curves))
    cells = [(strength, curve) for curve in curves for strength in (0.2, 0.8)]
    for image, infotext, (strength, curve) in zip(images, infotexts, cells, strict=True):
        job = alone(webui, {**SETTINGS, "strength": strength, "curve": curve})
        assert np.array_equal(image, job.image)
        assert f"AsynDM strength: {strength}, AsynDM curve: {curve}" in infotext


def test_an_axis_that_says_off_is_obeyed(webui: WebUI) -> None:
    for axes in (
        (("[AsynDM] Enabled", ["True", "False"]), ("[AsynDM] Strength", ["0.5"])),
        (("[AsynDM] Strength", ["0.5"]), ("[AsynDM] Enabled", ["True", "False"])),
    ):
        images, infotexts = plot(webui, *axes)
        assert ["AsynDM" in infotext for infotext in infotexts] == [True, False]
        assert np.array_equal(images[1], alone(webui, None).image)


def test_the_panel_s_values_by_position(webui: WebUI) -> None:
    """As the page sends them: no dictionary."""
    scripts = {"AsynDM": {"args": [False, "cat, sandwich", 0.7]}}
    images, _ = plot(webui, ("[AsynDM] Strength", ["0.3", "0.7"]), alwayson_scripts=scripts)
    for image, strength in zip(images, (0.3, 0.7), strict=True):
        assert np.array_equal(image, alone(webui, {**SETTINGS, "strength": strength}).image)


def test_every_setting_has_an_axis_that_works(webui: WebUI, tmp_path: Path) -> None:
    """The value stands in the infotext of the cell, or, where it is the default, does not."""
    mask = tmp_path / "left.png"
    Image.fromarray(np.repeat([[255, 0]], 2, axis=0).astype(np.uint8)).save(mask)
    values = {
        "objects": "sandwich:0.4",
        "mask": str(mask),
        "region": "everything",
        "hires": "first",
        "min_area": "0.1",
        "max_area": "0.6",
        "start": "0.2",
        "end": "0.6",
    }
    for spec in FIELDS:
        if spec.name == "compare_plain":  # a cell has one picture
            continue
        fallback = "True" if spec.is_switch else spec.choices[-1] if spec.choices else "0.5"
        value = values.get(spec.name, fallback)
        settings = {**SETTINGS, "enabled": False, **({"region": "mask"} if spec.part == "mask" else {})}
        if spec.part == "mask" and spec.name != "mask":  # what stands in the infotext where there is a mask
            settings["mask"] = to_base64(np.repeat(np.uint8([[255, 0]]), 2, axis=0))
        _, (infotext,) = plot(webui, (f"[AsynDM] {spec.label}", [value]), settings=settings, steps=2)
        written = f'"{value}"' if ":" in value and spec.name == "objects" else value
        if spec.name == "mask":
            assert "AsynDM mask: " in infotext
            slow = levels(webui)[2][0, 0]
            assert np.all(slow[:, :8] == 0.7) and np.all(slow[:, 8:] == 0)
        else:
            quoted = f'"{written}"' if "," in written else written  # as the host writes it
            assert f"{spec.infotext_key}: {quoted}" in infotext, spec.name


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("Strength", ["0.5", "1.5"], "the axis Strength cannot take 1.5: Strength must lie between 0 and 1"),
        (
            "Curve",
            ["bin"],
            "Curve must be one of 'quadratic', 'piecewise linear', 'exponential', 'head start', 'linear'",
        ),
        ("Mask", ["nowhere.png"], "the axis Mask cannot take nowhere.png: the mask is not a picture"),
        ("Soft objects", ["yes"], "it must be True or False"),
        ("Comparison", ["AsynDM", "best"], "it must be one of 'plain', 'concave', 'AsynDM', 'fixed mask'"),
    ],
)
def test_bad_values_stop_the_plot_before_its_first_cell(webui: WebUI, axis: str, values: list, message: str) -> None:
    alone(webui, SETTINGS)
    with pytest.raises(ApiError) as caught:
        plot(webui, (f"[AsynDM] {axis}", values))
    assert message in caught.value.message


def test_a_refused_cell_shows_the_reason(webui: WebUI) -> None:
    """Some cells of a grid of starts and ends cannot be; the others are drawn."""
    before = len(webui.log())
    axes = ("[AsynDM] Start", ["0.6", "0.2"]), ("[AsynDM] End", ["0.4", "0.8"])
    cells, infotexts = plot(webui, *axes, n_iter=2)
    reason = "not drawn: Start must be less than End, but they are 0.6 and 0.4"
    assert [reason in infotext for infotext in infotexts] == [True, False, False, False]
    assert cells[0].shape == cells[1].shape and np.median(cells[0]) > 240 and cells[0].min() < 100, (
        "dark words on paper"
    )
    for cell, (start, end) in zip(cells[1:], ((0.2, 0.4), (0.6, 0.8), (0.2, 0.8)), strict=True):
        assert np.array_equal(cell, alone(webui, {**SETTINGS, "start": start, "end": end}).image)
    assert "Traceback" not in webui.log()[before:]
    assert "AsynDM: Start must be less than End" in webui.log()[before:]


def test_an_object_that_a_cell_s_prompt_lacks(webui: WebUI) -> None:
    """Known when the cell is about to be sampled; hires fix draws no second pass of it."""
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": webui.upscaler("Latent"), "denoising_strength": 0.5}
    hires.update(webui.about.hires)
    cells, infotexts = plot(webui, ("Prompt S/R", ["cat", "dog"]), settings=SETTINGS, **hires)
    assert "AsynDM: \"not drawn: 'cat' was not found in the prompt" in infotexts[1] and "not drawn" not in infotexts[0]
    assert cells[1].shape == cells[0].shape == (256, 256, 3) and np.median(cells[1]) > 240
    alone(webui, SETTINGS)


def test_a_cell_that_goes_without_is_labelled(webui: WebUI) -> None:
    """Its infotext says so, but no grid shows it."""
    cells, infotexts = plot(webui, ("Sampler", ["Euler a", "Elsewhere"]), settings=SETTINGS)
    assert ["not applied" in infotext for infotext in infotexts] == [False, True]
    plain = alone(webui, None, sampler_name="Elsewhere").image
    assert np.array_equal(cells[1][:64], plain[:64]), "the WebUI's own picture above the label"
    assert not np.array_equal(cells[1], plain) and np.median(cells[1][-8:]) > 240


def test_passes_of_adetailer_see_the_axis(webui: WebUI) -> None:
    inner = {"asyndm inner pass": {"args": [True]}}
    settings = {**SETTINGS, "enabled": False}
    scripts = {"alwayson_scripts": {"AsynDM": {"args": [settings]}, **inner}}
    images, infotexts = plot(webui, ("[AsynDM] In ADetailer", ["False", "True"]), **scripts)
    assert ["AsynDM" in infotext for infotext in infotexts] == [False, True]
    assert not np.array_equal(*images)


def test_in_img2img(webui: WebUI) -> None:
    args = plot_args(webui, ("[AsynDM] Comparison", ["plain", "AsynDM"]), img2img=True)
    request = {**SMALL, "denoising_strength": 0.75, "script_name": "x/y/z plot", "script_args": args}
    settings = {**SETTINGS, "enabled": False}
    _, *cells = webui.img2img(picture(128, 128), "tiny-sd1", **request, **asyndm(settings)).images
    del request["script_name"], request["script_args"]
    assert np.array_equal(cells[0], webui.img2img(picture(128, 128), "tiny-sd1", **request).image)
    assert np.array_equal(cells[1], webui.img2img(picture(128, 128), "tiny-sd1", **request, **asyndm(SETTINGS)).image)


def test_what_a_cell_s_job_forwards_is_json(webui: WebUI) -> None:
    """A worker node is sent the cell's arguments."""
    plot(webui, ("[AsynDM] Comparison", ["fixed mask"]))
    packed = json.loads(json.dumps(webui.get("/asyndm-probe/packed")))["AsynDM"]["args"][0]
    assert packed == {**SETTINGS, "region": "objects", "mask_source": "fixed"}
