"""The studio in a real browser. It needs no WebUI, only gradio and Chromium; no picture has to be a good one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .browser import wait
from .studio import Studio, StudioBrowser

pytestmark = pytest.mark.usefixtures("chromium", "gradio_installed")

PROMPT = "a shark riding a bike"
SMALL = {"steps": 5, "width": 128, "height": 128, "seed": 3}


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with Studio() as started:
        yield started


@pytest.fixture
def browser(studio: Studio) -> Iterator[StudioBrowser]:
    with StudioBrowser(studio.url, (1400, 1500)) as opened:
        opened.prompt(PROMPT)
        for name, value in SMALL.items():
            opened.number(name, value)
        yield opened


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def pixels(address: str) -> np.ndarray:
    return np.asarray(opened(address).convert("RGB"), dtype=int)


def orange(address: str) -> float:
    """How much of a picture of the slow pixels is tinted."""
    red, _, blue = np.moveaxis(pixels(address), -1, 0)
    return float((red - blue > 40).mean())


def test_three_pictures_and_their_steps(browser: StudioBrowser) -> None:
    assert wait(browser.chips, "chips") == [("shark", True), ("bike", True)]
    browser.press_run()
    addresses = browser.pictures()
    assert [opened(one).size for one in addresses] == [(128, 128)] * 3
    plain, concave, ours = (opened(one) for one in addresses)
    assert "AsynDM" not in plain.text["parameters"].replace("asyndm", "")
    assert "AsynDM region: everything" in concave.text["parameters"]
    assert 'AsynDM objects: "shark, bike"' in ours.text["parameters"]
    assert (pixels(addresses[0]) != pixels(addresses[2])).any()

    slider = browser.one("#studio_step input[type=range]")
    assert (slider.get_property("min"), slider.get_property("max")) == ("1", "5")
    prediction, slow, clock = browser.pictures("#studio_step_view")
    assert orange(slow) > 0.05 and len(np.unique(pixels(clock).reshape(-1, 3), axis=0)) > 1
    browser.number("step", 1)
    wait(lambda: browser.pictures("#studio_step_view")[0] != prediction, "another step")
    first = browser.pictures("#studio_step_view")
    assert len(np.unique(pixels(first[2]).reshape(-1, 3), axis=0)) == 1, "all noise on every pixel"
    assert browser.console() == []


def test_a_preset(browser: StudioBrowser) -> None:
    def lit() -> list[str]:
        return [one.text for one in browser.all(browser.id("presets") + " [aria-pressed=true]")]

    wait(lambda: lit() == ["Paper"], "the preset of the defaults")
    browser.click(browser.id("presets") + " [data-press=preset_strong]")
    wait(lambda: lit() == ["Strong"], "the one that was pressed")
    assert (float(browser.value("strength")), browser.value("curve")) == (1.0, "piecewise linear")
    browser.press_run()
    text = opened(browser.pictures()[2]).text["parameters"]
    assert "AsynDM strength: 1" in text and "AsynDM curve: piecewise linear" in text


def test_the_panel_acts(browser: StudioBrowser) -> None:
    wait(browser.chips, "chips")
    browser.write(browser.id("strength") + " input[type=number]", 0)
    browser.press_run()
    plain, _, ours = map(pixels, browser.pictures())
    assert (plain == ours).all()

    browser.write(browser.id("strength") + " input[type=number]", 1)
    browser.select(browser.id("curve"), "piecewise linear")
    browser.click(browser.id("chips") + " .asyndm-chip:last-child")
    wait(lambda: browser.value("objects") == "shark", "the objects without the bike")
    browser.unfold("advanced")
    browser.select(browser.id("mask_source"), "fixed")
    browser.press_run()
    text = opened(browser.pictures()[2]).text["parameters"]
    for part in ("curve: piecewise linear", "strength: 1", "AsynDM objects: shark", "mask source: fixed"):
        assert part in text
    assert (pixels(browser.pictures()[2]) != plain).any()
    lag = browser.one(browser.id("plot") + " .asyndm-lag").text
    assert lag == "50 %"

    browser.switch(False)
    browser.press_run()
    assert "AsynDM is off" in browser.status()
    assert [(pixels(one) == plain).all() for one in browser.pictures()] == [True]
    browser.switch(True)
    browser.press_run()
    assert len(browser.pictures()) == 3


@pytest.mark.parametrize(
    ("prompt", "objects", "message"),
    [
        ("a shark riding a bik", "", "does not know the word 'bik'. Did you mean bike"),
        ("a shark and a penguin", "", "one animal at a time; this prompt has shark and penguin"),
        (PROMPT, "green bike", "'green bike' is not in the prompt"),
        (PROMPT, "shark:7", "from 0 to 1"),
        ("", "", "The prompt names no animal"),
    ],
)
def test_what_is_wrong_is_said(browser: StudioBrowser, prompt: str, objects: str, message: str) -> None:
    browser.prompt(prompt)
    browser.write(browser.id("objects") + " textarea", objects)
    browser.press_run()
    assert message in browser.one("#studio_status [role=alert]").text
    assert "Traceback" not in browser.run("return document.body.innerText")
    assert browser.console() == []
    browser.write(browser.id("objects") + " textarea", "")
    browser.prompt(PROMPT)
    browser.press_run()
    assert len(browser.pictures()) == 3, "it goes on after an error"


def test_a_painted_mask(browser: StudioBrowser, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.new("RGB", (200, 200), (90, 120, 60)).save(file)
    browser.select(browser.id("region"), "mask")
    browser.press_run()
    assert "needs a mask" in browser.one("#studio_status [role=alert]").text
    browser.mask_says("There is no mask yet, and the region “mask” needs one")
    browser.paint(browser.load_mask(file), [(-60, -60), (-20, -20)])

    def drawn() -> list[str]:
        browser.press_run()  # the mask may still be on its way
        return browser.pictures("#studio_step_view")

    slow = pixels(wait(drawn, "a picture with the mask")[1])
    tinted = slow[..., 0] - slow[..., 2] > 40
    assert 0 < tinted.mean() < 0.4
    half = tinted.shape[0] // 2
    assert tinted[:half, :half].mean() > 2 * tinted[half:, half:].mean(), "painted at the upper left"
    browser.mask_says("The mask is what you have painted")
    browser.remove_mask()
    browser.mask_says("There is no mask yet")
    browser.press_run()
    assert "needs a mask" in browser.one("#studio_status [role=alert]").text, "the old one is not used"


def test_an_uploaded_mask(browser: StudioBrowser, tmp_path: Path) -> None:
    """Without a stroke; gradio calls that no change."""
    file = tmp_path / "left.png"
    Image.new("L", (64, 64), 0).save(file)
    with Image.open(file) as mask:
        mask.paste(255, (0, 0, 32, 64))
        mask.save(file)
    browser.load_mask(file)
    browser.mask_says("There is a picture in Mask, but the region “objects” does not use it")
    browser.click(browser.id("mask_line") + " [data-press=to_mask]")
    browser.mask_says("The mask is the picture itself")
    browser.press_run()
    slow = pixels(browser.pictures("#studio_step_view")[1])
    tinted = slow[..., 0] - slow[..., 2] > 40
    half = tinted.shape[1] // 2
    assert tinted[:, : half - 4].mean() > 0.9 and tinted[:, half + 4 :].mean() < 0.5, "the left half"


def test_interrupt(browser: StudioBrowser) -> None:
    for name, value in (("steps", 150), ("width", 256), ("height", 256)):
        browser.number(name, value)
    browser.click("#studio_run")
    wait(lambda: " of 450" in browser.status(), "progress")
    assert browser.is_running()
    browser.click("#studio_interrupt")
    wait(lambda: "Interrupted" in browser.status(), "the end")
    assert not browser.is_running()
    for name, value in SMALL.items():
        browser.number(name, value)
    browser.press_run()
    assert len(browser.pictures()) == 3


@pytest.mark.parametrize("width", [400, 800])
def test_narrow_windows(studio: Studio, width: int) -> None:
    with StudioBrowser(studio.url) as browser:
        browser.resize(width, 1400)
        wait(browser.chips, "chips")
        for name, value in SMALL.items():
            browser.number(name, value)
        browser.press_run()
        assert browser.run("return document.documentElement.scrollWidth") <= width, "nothing sticks out"
