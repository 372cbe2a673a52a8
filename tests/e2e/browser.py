"""A headless Chromium on the WebUI's page, and our panel in it.

Works on gradio 3 (A1111) and 4 (Forge). Chromium and its driver are looked for on the path.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
SECONDS = float(os.environ.get("ASYNDM_E2E_SECONDS", "60"))
"""How long anything may take; more on a machine that is busy with something else."""
# The address of the server is another one each time.
T = TypeVar("T")

_WATCH_THE_END = """const mine = arguments[0], remove = window.localRemove;
    window.asyndmJobHasEnded = false;
    window.localRemove = function(key) {
        if (key === mine) {
            window.asyndmJobHasEnded = true;
            window.localRemove = remove;
        }
        return remove(key);
    };"""
"""The hosts' pages keep the name of a job that runs, and forget it when it has ended, however that came."""

_RESULTS = """const text = (css) => document.querySelector(css)?.innerText ?? '';
    const pictures = document.querySelectorAll(arguments[2] + ' img');
    const drawn = Array.from(pictures).filter((one) => !one.closest('.livePreview'));
    return [text(arguments[0]), text(arguments[1]), drawn.map((one) => one.src).join(' ')];"""


def problem() -> str | None:
    """Why there is no browser, if so."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install -e '.[e2e]')"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found" if missing else None


def wait(until: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = until()
        if answer:
            return answer
        time.sleep(0.15)
    raise AssertionError(f"{what}: not in {seconds} seconds")


class Browser:
    """One window on one WebUI.

    Attributes:
        READY: what says, in JavaScript, that the page's scripts have run.

    Args:
        url: of the WebUI.
        size: of the window.
        theme: "dark" or "light".
    """

    READY = "return typeof uiLoadedCallbacks !== 'undefined' && executedOnLoaded && Object.keys(opts).length > 0"

    def __init__(self, url: str, size: tuple[int, int] = (1400, 1700), theme: str = "dark") -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.url = url
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(SECONDS)
        self.open(theme)

    def open(self, theme: str = "dark") -> None:
        """Loads the page anew and waits until its scripts have run."""
        self.driver.get(f"{self.url}/?__theme={theme}")
        wait(lambda: self.run(self.READY), "the page")

    def close(self) -> None:
        self.driver.quit()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- the page

    def run(self, script: str, *arguments: Any) -> Any:
        """JavaScript, as the body of a function."""
        return self.driver.execute_script(script, *arguments)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str) -> WebElement:
        found = wait(lambda: self.all(css), css)
        return found[0]

    def to(self, element: WebElement, block: str = "center") -> WebElement:
        """Scrolls there."""
        self.run("arguments[0].scrollIntoView({block: arguments[1]})", element, block)
        return element

    def write(self, css: str, text: Any) -> None:
        """Sets the value of a field as typing does."""
        script = "arguments[0].value = arguments[1]; updateInput(arguments[0]); arguments[0].blur()"
        self.run(script, self.one(css), str(text))

    def click(self, css: str) -> None:
        self.run("arguments[0].click()", self.one(css))

    def select(self, css: str, choice: str) -> None:
        """Chooses from a dropdown."""
        self.to(self.one(f"{css} input")).click()

        def offered() -> list[WebElement]:
            return [li for li in self.all(f"{css} li, ul.options li") if li.text.strip().lstrip("✓").strip() == choice]

        wait(offered, f"{choice!r} in {css}")[0].click()
        wait(lambda: self.one(f"{css} input").get_property("value") == choice, f"{choice!r} chosen")

    def console(self) -> list[str]:
        """Warnings and errors since the last call, without what differs from one run to the next."""
        lines = [entry["message"].replace(self.url, "") for entry in self.driver.get_log("browser")]
        return [line for line in lines if "ERR_NAME_NOT_RESOLVED" not in line and "WebGL" not in line]

    def generate(self, tab: str = "txt2img") -> None:
        """Presses Generate and waits for the pictures.

        What the job leaves on the page is mostly something new: pictures have names of their own, also where two runs
        print the same time. Two that fail alike leave the same; then the page's own end of the job has to do.
        """
        self.run(_WATCH_THE_END, f"{tab}_task_id")
        before = self._results(tab)
        self.click(f"#{tab}_generate")
        ended: list[float] = []

        def done() -> bool:
            if self._results(tab) != before and self._results(tab)[0]:
                return True
            if not ended and self.run("return window.asyndmJobHasEnded"):
                ended.append(time.monotonic())
            return bool(ended) and time.monotonic() - ended[0] > SECONDS / 4

        wait(done, "the pictures", 3 * SECONDS)

    def _results(self, tab: str) -> list[Any]:
        """What a job leaves on the page: its log, its infotext and the addresses of its pictures."""
        return list(self.run(_RESULTS, f"#html_log_{tab}", f"#html_info_{tab}", f"#{tab}_gallery"))

    # -- our panel

    def id(self, name: str, tab: str = "txt2img") -> str:
        """Selector of an element of the panel."""
        return f"#script_{tab}_asyndm_{name}"

    def is_on(self, tab: str = "txt2img") -> bool:
        return bool(self.one(f"{self.id('enabled', tab)}-checkbox input").get_property("checked"))

    def switch(self, on: bool = True, tab: str = "txt2img") -> None:
        """Opens or closes the panel, which is on or off."""
        if self.is_on(tab) != on:
            self.click(f"{self.id('enabled', tab)} .label-wrap")
        wait(lambda: self.is_on(tab) == on, f"the panel, on: {on}")

    def unfold(self, name: str, tab: str = "txt2img") -> None:
        """Opens a folded part: "mask_fold" or "advanced"."""
        label = self.one(f"{self.id(name, tab)} .label-wrap")
        if "open" not in str(label.get_attribute("class")).split():
            self.run("arguments[0].click()", label)

    def chips(self, tab: str = "txt2img") -> list[tuple[str, bool]]:
        """Texts of the chips, and whether they are on."""
        script = """return Array.from(document.querySelectorAll(arguments[0] + ' .asyndm-chip'),
            (chip) => [chip.textContent, chip.getAttribute('aria-pressed') === 'true'])"""
        return [(text, on) for text, on in self.run(script, self.id("chips", tab))]

    def drag_chip(self, text: str, onto: str, tab: str = "txt2img", finger: bool = False) -> None:
        """With the mouse or a finger, in three movements, and lets go of it above the other one."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_TOUCH
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        self.to(self.one(self.id("chips", tab)))
        chip, other = self.chip(text, tab), self.chip(onto, tab)
        x, y = (other.rect[key] - chip.rect[key] for key in ("x", "y"))
        hand = PointerInput(POINTER_TOUCH, "finger") if finger else PointerInput(POINTER_MOUSE, "mouse")
        press = ActionChains(self.driver, devices=[hand]).move_to_element(chip).click_and_hold()
        press.move_by_offset(3, 0).move_by_offset(round(x / 2) - 3, round(y / 2))
        press.move_to_element(other).release().perform()

    def chip(self, text: str, tab: str = "txt2img") -> WebElement:
        """The chip that says this, once the line is no longer drawn anew."""
        selector = f"{self.id('chips', tab)} .asyndm-chips"
        line = self.one(selector)
        while time.sleep(0.8) or self.one(selector) != line:
            line = self.one(selector)
        found = [one for one in self.all(f"{selector} .asyndm-chip") if one.text == text]
        assert len(found) == 1, f"{len(found)} chips say {text!r}"
        return found[0]

    def value(self, name: str, tab: str = "txt2img") -> Any:
        """What a control of ours says now."""
        box = f"{self.id(name, tab)}"
        if name == "enabled":
            return self.is_on(tab)
        script = """const box = document.querySelector(arguments[0]);
            const input = box.querySelector('input[type=number], textarea, input');
            return input.type === 'checkbox' ? input.checked : input.value"""
        return self.run(script, box)

    def load_mask(self, file: Path, tab: str = "txt2img") -> WebElement:
        """Puts a picture into the mask's control; returns the canvas to paint on."""
        self.unfold("mask_fold", tab)
        picture = self.id("mask_picture", tab)

        def canvases() -> list[WebElement]:
            return [c for c in self.all(f"{picture} canvas") if c.is_displayed() and c.size["width"] > 50]

        if not str(self.run("return window.gradio_config.version")).startswith("3."):
            wait(canvases, "the editor")  # gradio's later ones fail on a picture that comes before they are there
            time.sleep(1)
        self.one(f"{picture} input[type=file]").send_keys(str(file))
        canvas = self.to(wait(canvases, "the picture to paint on")[-1])
        time.sleep(1.5)  # it grows to its size, and knows that only afterwards
        for brush in self.all(f"{picture} button[aria-label='Draw button']"):  # gradio 4 begins with another tool
            self.run("arguments[0].click()", brush)
        return canvas

    def remove_mask(self, tab: str = "txt2img") -> None:
        """The X of the mask's control."""
        names = ("Remove Image", "Clear canvas")  # of gradio 3 and of later ones
        self.click(", ".join(f"{self.id('mask_picture', tab)} button[aria-label='{name}']" for name in names))

    def mask_says(self, beginning: str, tab: str = "txt2img") -> str:
        """Waits for the line above the mask to begin like this; returns all of it. The mask takes a while to get there
        and back."""
        line = self.one(self.id("mask_line", tab))

        def said() -> str:
            text = str(self.run("return arguments[0].innerText", line)).strip()
            return text if text.startswith(beginning) else ""

        return wait(said, f"{beginning!r} above the mask")

    def is_shown(self, name: str, tab: str = "txt2img") -> bool:
        """Whether a control of ours can be seen where it is not folded away."""
        return bool(self.run("return arguments[0].getClientRects().length > 0", self.one(self.id(name, tab))))

    def paint(self, canvas: WebElement, points: Sequence[tuple[int, int]]) -> None:
        """A stroke through points, in pixels from the middle; then waits until the page has sent it."""
        from selenium.webdriver import ActionChains

        stroke = ActionChains(self.driver).move_to_element_with_offset(canvas, *points[0]).click_and_hold()
        for (x, y), (to_x, to_y) in pairwise(points):
            for _ in range(4):
                stroke = stroke.move_by_offset((to_x - x) // 4, (to_y - y) // 4).pause(0.05)
        stroke.release().perform()
        time.sleep(1.5)

    def screenshot(self, file: Path, css: str) -> None:
        """Of one element."""
        self.to(self.one(css), "start")
        time.sleep(0.3)  # what slides open
        self.one(css).screenshot(str(file))


def chips_are_moved(browser: Browser) -> None:
    """What is drawn first, chosen with mouse, finger and keys; the prompt has "cat" and "sandwich" in this order."""
    from selenium.webdriver.common.keys import Keys

    def says(objects: str, *chips: str) -> None:
        wait(lambda: browser.value("objects") == objects, f"{objects!r} in Objects")
        wait(lambda: tuple(text for text, _ in browser.chips()) == chips, f"the chips {chips}")

    def focused() -> str:
        return str(browser.run("return document.activeElement.dataset.name || document.activeElement.tagName"))

    wait(lambda: browser.chips() == [("cat", True), ("sandwich", True)], "chips")
    browser.drag_chip("sandwich", onto="cat")
    says("sandwich > cat", "sandwich", "cat", "undo the order")
    assert [one.get_attribute("data-turn") for one in browser.all(browser.id("chips") + " .asyndm-chip")] == [
        "1",
        "2",
        None,
    ]
    assert browser.chips()[:2] == [("sandwich", True), ("cat", True)], "that was no click"
    browser.run("arguments[0].focus()", browser.chip("sandwich"))
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    time.sleep(1)
    says("sandwich > cat", "sandwich", "cat", "undo the order")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    says("cat > sandwich", "cat", "sandwich", "undo the order")
    wait(lambda: focused() == "sandwich", "the focus, still on what was moved")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    says("sandwich > cat", "sandwich", "cat", "undo the order")
    browser.chip("cat").click()
    says("sandwich", "sandwich", "cat")
    browser.chip("cat").click()
    says("sandwich, cat", "sandwich", "cat")
    browser.drag_chip("sandwich", onto="cat")
    says("cat > sandwich", "cat", "sandwich", "undo the order")
    browser.drag_chip("sandwich", onto="cat", finger=True)
    says("sandwich > cat", "sandwich", "cat", "undo the order")
    assert browser.chips()[:2] == [("sandwich", True), ("cat", True)], "nor was that a tap"
    browser.drag_chip("sandwich", onto="cat", finger=True)
    says("cat > sandwich", "cat", "sandwich", "undo the order")
    browser.chip("undo the order").click()
    says("cat, sandwich", "cat", "sandwich")
