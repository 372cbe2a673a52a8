"""Presets on the page, in the API and in the plot; and presets of one's own, kept as the WebUI keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from asyndm_ext.presets import PRESETS, preset

from .browser import Browser, wait
from .server import PROBE, REPOSITORY, WebUI

pytestmark = pytest.mark.xdist_group("webui")

OWN = {"Strength": 0.9, "Curve": "head start"}


@pytest.fixture(scope="module")
def page(chromium: None, launch: Callable[..., WebUI]) -> WebUI:
    return launch("presets", page=True, extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE})


@pytest.fixture
def browser(page: WebUI) -> Iterator[Browser]:
    with Browser(page.url) as browser:
        yield browser


def lit(browser: Browser) -> tuple[list[str], list[str]]:
    """The names of the buttons that are, and the sentences that can be read."""
    line = browser.id("presets")
    names = [one.text for one in browser.all(f"{line} [aria-pressed=true]")]
    return names, [one.text for one in browser.all(f"{line} p") if one.is_displayed()]


def press(browser: Browser, name: str) -> None:
    button = next(one for one in browser.all(browser.id("presets") + " button") if one.text == name)
    browser.to(button).click()


def test_a_press_sets_the_controls_and_says_what_it_has_earned(browser: Browser) -> None:
    browser.switch()
    paper = preset("Paper")
    assert lit(browser) == (["Paper"], [f"{paper.help} {paper.earned}"])
    for one in PRESETS:
        press(browser, one.name)
        wait(lambda one=one: lit(browser) == ([one.name], [f"{one.help} {one.earned}"]), f"{one.name} lit")
        for name, value in one.settings.items():
            shown = browser.value(name)
            assert (float(shown) if name == "strength" else shown) == value, (one.name, name)
    assert browser.is_shown("mask_fold") and not browser.is_shown("objects"), "Repair's region is the mask"
    press(browser, "Strong")
    wait(lambda: browser.is_shown("objects"), "objects again")
    lag = browser.id("plot") + " .asyndm-lag"
    assert browser.run("return arguments[0].textContent", browser.one(lag)) == "50 %"
    browser.write(browser.id("strength") + " input[type=number]", 0.95)
    wait(lambda: lit(browser) == ([], []), "settings of one's own")


def test_one_s_own_as_the_webui_keeps_them(page: WebUI) -> None:
    """What Settings > Defaults writes, the page begins with; a line of an infotext is another way to keep them."""
    restored = page.post(
        "/asyndm-probe/pasted",
        {"infotext": "a cat\nAsynDM strength: 0.9, AsynDM curve: head start, AsynDM region: objects"},
    )
    assert (restored["enabled"], restored["strength"], restored["curve"]) == (True, 0.9, "head start")
    config = page.folder / "ui-config.json"
    kept = json.loads(config.read_text(encoding="utf-8"))
    keys = {name: f"customscript/asyndm.py/txt2img/{name}/value" for name in OWN}
    assert {kept[key] for key in keys.values()} == {0.7, "quadratic"}
    config.write_text(json.dumps(kept | {keys[name]: value for name, value in OWN.items()}), encoding="utf-8")
    page.reload_page()
    with Browser(page.url) as browser:
        browser.switch()
        assert (float(browser.value("strength")), browser.value("curve")) == (0.9, "head start")
        assert lit(browser) == ([], [])


def test_the_api_and_the_plot(webui: WebUI) -> None:
    from .test_xyz import SETTINGS, alone, plot

    strong = {**SETTINGS, "strength": 1.0, "curve": "piecewise linear"}
    named = {name: value for name, value in SETTINGS.items() if name not in ("strength", "curve")}
    job = alone(webui, {**named, "preset": "Strong"})
    assert job.png == alone(webui, strong).png
    assert "AsynDM strength: 1, AsynDM curve: piecewise linear" in job.infotext and "preset" not in job.infotext
    weaker = alone(webui, {**named, "preset": "Strong", "strength": 0.3})
    assert weaker.png == alone(webui, {**strong, "strength": 0.3}).png
    cells = (("[AsynDM] Strength", ["0.3"]), ("[AsynDM] Preset", ["Gentle", "Strong"]))
    _, infotexts = plot(webui, *cells)
    curves = ["quadratic", "piecewise linear"]
    for infotext, curve in zip(infotexts, curves, strict=True):
        assert f"AsynDM strength: 0.3, AsynDM curve: {curve}" in infotext
