"""The page on which people vote, in a real browser. It needs no WebUI, only Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary
from asyndm_ext.evaluate.vote import KEY, read, write
from tests.support.evaluation import CONDITIONS, SHARE

from .browser import FLAGS, wait
from .test_report import OVERFLOWS

pytestmark = pytest.mark.usefixtures("chromium")
COLOURS = {"plain": "#b33", "concave": "#3a3", "asyndm": "#33b"}


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five pairs by three methods, with its page."""
    place = tmp_path_factory.mktemp("vote")
    prompts = [Prompt(f"a penguin on a sled in the desert, picture {n}, with <b>words</b>", "some") for n in range(5)]
    plan = Plan(prompts, lay_out(["concave", "asyndm"], {"strength": [0.7], "curve": ["quadratic"]}, CONDITIONS))
    results = {}
    for pair in plan.pairs:
        for method in plan.methods:
            name = f"{method.kind}-{pair.seed}.png"
            Image.new("RGB", (128, 128), COLOURS[method.kind]).save(place / name)
            results[pair.key(method)] = Result(pair.prompt.text, pair.seed, method.id, picture=name)
    write(Summary(plan, results, [SHARE]), place, plan.methods, 5, seed=0)
    return place


def sized(driver: Any, width: int, height: int = 900, scheme: str = "light") -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def opened(driver: Any, folder: Path, voter: str) -> None:
    driver.get((folder / "vote.html").as_uri())
    field = driver.find_element("id", "name")
    field.send_keys(voter)
    driver.find_element("css selector", "#who button").click()


def place(driver: Any) -> str:
    return driver.find_element("id", "place").text


def settled(driver: Any) -> None:
    wait(lambda: not driver.execute_script("return document.body.dataset.waits || ''"), "the next group", 10)


def colours(driver: Any) -> list[int]:
    """Which colour leads in each picture that is shown, from left to right."""
    return driver.execute_async_script(
        """const done = arguments[0], images = [...document.querySelectorAll('#pictures img')];
        Promise.all(images.map((one) => one.decode())).then(() => done(images.map((one) => {
            const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
            const pen = canvas.getContext('2d'); pen.drawImage(one, 0, 0, 1, 1);
            const seen = [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
            return seen.indexOf(Math.max(...seen));
        })));"""
    )


def saved(driver: Any) -> dict[str, Any]:
    """What the file would hold."""
    driver.execute_script("document.getElementById('save').addEventListener('click', (e) => e.preventDefault())")
    link = driver.find_element("id", "save")
    link.click()
    assert link.get_attribute("download").startswith("vote-")
    return json.loads(unquote(link.get_attribute("href").split(",", 1)[1]))


def test_a_voter_from_begin_to_end(driver: Any, folder: Path) -> None:
    """Keys, clicks and a reload in the middle; the file says what was chosen, and the report reads it."""
    from selenium.webdriver.common.keys import Keys

    sized(driver, 1200)
    driver.get((folder / "vote.html").as_uri())
    driver.find_element("css selector", "#who button").click()
    assert "Write a name" in driver.find_element("id", "told").text
    opened(driver, folder, "Ann")
    page = driver.find_element("css selector", "body")
    assert place(driver) == "1 of 5" and driver.find_element("id", "prompt").text.endswith("with <b>words</b>")

    chosen: dict[str, int] = {}

    def now() -> str:
        return driver.find_element("id", "prompt").text

    chosen[now()] = colours(driver)[1]
    page.send_keys("2")
    settled(driver)
    assert place(driver) == "2 of 5"
    chosen[now()] = colours(driver)[0]
    driver.find_elements("css selector", "#pictures button")[0].click()
    settled(driver)
    chosen[now()] = -1
    page.send_keys("0")
    settled(driver)
    page.send_keys(Keys.ARROW_LEFT)
    assert place(driver) == "3 of 5"
    assert driver.find_element("id", "none").get_attribute("aria-pressed") == "true"

    opened(driver, folder, "Ann")  # as after a reload: it goes on at the first open one
    assert place(driver) == "4 of 5"
    assert driver.find_element("css selector", ".bar").get_attribute("aria-valuenow") == "3"
    driver.find_element("id", "next").click()
    assert place(driver) == "5 of 5"
    chosen[now()] = colours(driver)[2]
    driver.find_elements("css selector", "#pictures button")[2].click()
    settled(driver)
    assert "You answered 4 of 5" in driver.find_element("id", "sum").text
    driver.find_element("id", "again").click()
    assert place(driver) == "4 of 5"
    driver.find_element("id", "finish").click()

    votes = saved(driver)
    assert votes["voter"] == "Ann" and len(votes["votes"]) == 4
    (folder / "votes" / "ann.json").write_text(json.dumps(votes), encoding="utf-8")
    (found,) = read(folder)
    kinds = list(COLOURS)
    for number, method in found.choices["Ann"].items():
        expected = chosen[found.groups[number].prompt]
        assert method.split(" ")[0] == ("" if expected < 0 else kinds[expected])
    assert "Ann" not in (folder / KEY).read_text(encoding="utf-8")


def test_every_voter_has_an_order_of_his_own(driver: Any, folder: Path) -> None:
    sized(driver, 1200)
    seen = []
    for voter in ("one", "two", "three", "one"):
        opened(driver, folder, voter)
        seen.append((driver.find_element("id", "prompt").text, *colours(driver)))
    assert seen[0] == seen[3] and len(set(seen)) >= 2


@pytest.mark.parametrize("width", [360, 400, 720, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_and_can_be_read(driver: Any, folder: Path, width: int, scheme: str) -> None:
    sized(driver, width, 800, scheme)
    opened(driver, folder, f"reader {width} {scheme}")
    assert driver.execute_script(OVERFLOWS) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    for button in driver.find_elements("css selector", "#pictures button, .row button"):
        if button.is_displayed():
            assert min(button.size.values()) >= 40, "too small for a thumb"
    ink, paper = driver.execute_script(
        "const s = getComputedStyle(document.body);"
        "return [s.color, s.backgroundColor].map((c) => c.match(/\\d+/g).map(Number))"
    )
    assert abs(sum(ink[:3]) - sum(paper[:3])) > 450
    assert (sum(paper[:3]) < 200) is (scheme == "dark")
