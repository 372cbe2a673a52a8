"""The panel in another language, on the real page: translated, and it still works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from .browser import Browser, wait
from .server import REPOSITORY, WebUI

pytestmark = [pytest.mark.xdist_group("webui"), pytest.mark.usefixtures("chromium")]

JAPANESE = json.loads((REPOSITORY / "localizations" / "ja_JP.json").read_text(encoding="utf-8"))
PROMPT = "a red cat eating a sandwich on a wooden table"
LABELS = ("Objects", "Strength", "Curve", "Threshold", "Region", "Show", "Passes", "Mask", "Advanced")


@pytest.fixture(scope="module")
def browser(chromium: None, launch: Callable[..., WebUI]) -> Iterator[Browser]:
    webui = launch("japanese", page=True, extensions={"asyndm": REPOSITORY}, options={"localization": "ja_JP"})
    with Browser(webui.url) as opened:
        yield opened


def pieces(browser: Browser) -> set[str]:
    """All pieces of text in the panel, shown or folded away, as the WebUI's own script looks them up."""
    script = "return textNodesUnder(arguments[0]).map((node) => node.textContent.trim())"
    return set(browser.run(script, browser.one(browser.id("enabled"))))


def test_labels_and_help_are_translated(browser: Browser) -> None:
    wait(lambda: JAPANESE["Strength"] in pieces(browser), "the page in Japanese")
    found = pieces(browser)
    assert {JAPANESE[label] for label in LABELS} <= found
    assert not found & {key for key in JAPANESE if len(key) > 20}, "a help text that was not found"
    field = browser.one(browser.id("objects") + " textarea, " + browser.id("objects") + " input")
    assert field.get_attribute("placeholder") == JAPANESE["found automatically"]


def test_what_comes_later_is_translated_and_the_controls_keep_their_values(browser: Browser) -> None:
    browser.write("#txt2img_prompt textarea", PROMPT)
    browser.switch()
    assert wait(browser.chips, "chips") == [("cat", True), ("sandwich", True), ("table", True)]
    wait(lambda: JAPANESE["Found in the prompt:"] in pieces(browser), "the line of the objects in Japanese")
    browser.to(browser.one(browser.id("region") + " input")).click()
    offered = f"{browser.id('region')} li, ul.options li"
    choice = wait(lambda: [li for li in browser.all(offered) if JAPANESE["objects or mask"] in li.text], "its choices")
    choice[0].click()
    wait(lambda: browser.value("region") == "objects or mask", "the value as the job wants it")
    expected = next(text for key, text in JAPANESE.items() if "no mask yet, and the region “objects or mask”" in key)
    wait(lambda: expected in pieces(browser), "the line of the mask in Japanese")
