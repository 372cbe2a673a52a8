"""The report of an evaluation in a real browser. It needs no WebUI, only Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.evaluation import page, sometimes

from .browser import FLAGS

pytestmark = pytest.mark.usefixtures("chromium")

OVERFLOWS = """
return [...document.querySelectorAll("body *")].filter((one) =>
  one.getBoundingClientRect().right > innerWidth + 1 ||
  (getComputedStyle(one).overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1)
).map((one) => `${one.tagName} ${one.className}`)
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield opened
    opened.quit()


def scores(pair: Any, method: Any) -> dict[str, float]:
    return {**sometimes(pair, method), "relation": float(pair.seed % 2)}


@pytest.mark.parametrize("width", [360, 400, 720, 1200])
def test_nothing_has_to_be_scrolled_sideways(driver: Any, tmp_path: Path, width: int) -> None:
    """The window of a headless Chromium is never below 500 pixels, so the page's width is set."""
    Image.new("RGB", (128, 128), "teal").save(tmp_path / "one.png")
    text = page(12, ("one", "counted and one"), scores=scores, folder=tmp_path, picture="one.png")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get((tmp_path / "report.html").as_uri())
    driver.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert driver.execute_script(OVERFLOWS) == []
    (forest,) = (one for one in driver.find_elements("css selector", ".broad svg, .narrow svg") if one.is_displayed())
    drawn, shown = float(forest.get_attribute("width")), forest.size["width"]
    assert shown >= 0.8 * drawn, "the labels are too small to be read"
