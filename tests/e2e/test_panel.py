"""The panel on the real page, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from .browser import Browser, chips_are_moved, wait
from .server import PROBE, REPOSITORY, ApiError, WebUI

pytestmark = [pytest.mark.xdist_group("webui"), pytest.mark.usefixtures("chromium")]

PROMPT = "a red cat eating a sandwich on a wooden table"
SMALL = {"steps": 6, "width": 256, "height": 256, "seed": 1}


@pytest.fixture(scope="module")
def page(chromium: None, launch: Callable[..., WebUI]) -> WebUI:
    return launch("panel", page=True, extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE})


@pytest.fixture
def browser(page: WebUI) -> Iterator[Browser]:
    """A window of its own for each test: Forge's page cannot be loaded anew once it has sent a picture on."""
    with Browser(page.url) as opened:
        yield opened


def small(browser: Browser, tab: str = "txt2img") -> None:
    for name, value in SMALL.items():
        browser.write(f"#{tab}_{name} input[type=number], #{tab}_{name} input", value)


def pictures(browser: Browser, tab: str = "txt2img") -> int:
    """In the gallery: as many small ones below the large one, or the one."""
    small_ones = browser.all(f"#{tab}_gallery .thumbnail-item.thumbnail-small, #{tab}_gallery .thumbnail-small")
    return max(len(small_ones), len(browser.all(f"#{tab}_gallery img")) > 0)


def test_the_page_says_nothing_new(launch: Callable[..., WebUI], page: WebUI) -> None:
    plain = launch("panel-plain", page=True, extensions={"asyndm-e2e-probe": PROBE})
    said = []
    for server in (plain, page):
        with Browser(server.url) as browser:
            browser.write("#txt2img_prompt textarea", PROMPT)
            wait(lambda: browser.run("return arguments[0].innerText", browser.one("#txt2img_token_counter")) != "", "")
            if server is page:
                for tab in ("txt2img", "img2img"):
                    browser.switch(True, tab)
                wait(browser.chips, "chips")
                browser.write(browser.id("strength") + " input[type=number]", 0.3)
                browser.switch(False)
            said.append(set(browser.console()))
    plain.stop()
    assert said[1] - said[0] == set()


class TestRefused:
    def test_the_message_is_below_the_empty_gallery(self, page: WebUI, browser: Browser) -> None:
        """For every batch at once, and the console has one line of it."""
        small(browser)
        browser.write("#txt2img_batch_count input[type=number]", 3)
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.write(browser.id("objects") + " textarea", "dragon")
        browser.switch()
        before = len(page.log())
        browser.generate()
        assert "AsynDM: 'dragon' was not found in the prompt" in browser.one("#html_log_txt2img").text
        assert pictures(browser) == 0
        said = page.log()[before:]
        assert said.count("AsynDM") == 1 and "Traceback" not in said and "Arguments" not in said, said
        browser.write(browser.id("objects") + " textarea", "cat")
        browser.generate()
        assert pictures(browser) == 4, "the grid and three: nothing of the refused job is left"


class TestChips:
    def test_they_follow_the_prompt_while_the_panel_is_open(self, browser: Browser) -> None:
        browser.write("#txt2img_prompt textarea", PROMPT)
        assert browser.chips() == []
        browser.switch()
        found = wait(browser.chips, "chips")
        assert found == [("cat", True), ("sandwich", True), ("table", True)]
        browser.write("#txt2img_prompt textarea", "two owls in a barn")
        wait(lambda: browser.chips() == [("owls", True), ("barn", True)], "chips of the new prompt")

    def test_a_click_changes_the_objects(self, browser: Browser) -> None:
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch()
        wait(browser.chips, "chips")
        browser.to(browser.one(browser.id("chips") + " .asyndm-chip:last-child")).click()
        wait(lambda: browser.value("objects") == "cat, sandwich", "the objects without the table")
        wait(lambda: browser.chips() == [("cat", True), ("sandwich", True), ("table", False)], "chips")
        browser.to(browser.one(browser.id("chips") + " .asyndm-chip:last-child")).click()
        wait(lambda: browser.value("objects") == "cat, sandwich, table", "all three again")

    def test_they_follow_the_objects_and_the_region(self, browser: Browser) -> None:
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.write(browser.id("objects") + " textarea", "cat:0.5, dragon")
        browser.switch()
        expected = [("cat:0.5", True), ("dragon", False), ("sandwich", False), ("table", False)]
        wait(lambda: browser.chips() == expected, "chips")
        assert browser.one(browser.id("chips") + " .asyndm-wrong").text == "dragon"
        browser.select(browser.id("region"), "everything")
        wait(lambda: "does not use objects" in browser.one(browser.id("chips")).text, "a word about the region")

    @pytest.mark.parametrize("prompt", ["a cat on a mat", "a [cat:cat and mat:0.5]", "a (cat AND a mat:0.7)"])
    def test_a_second_one_that_is_not_there_is_struck_through(self, page: WebUI, browser: Browser, prompt: str) -> None:
        """As the job itself says, in each of the texts that prompt editing and AND make."""
        browser.write("#txt2img_prompt textarea", prompt)
        browser.write(browser.id("objects") + " textarea", "cat#1, cat#2")
        browser.switch()
        wait(lambda: browser.chips() == [("cat#1", True), ("cat#2", False), ("mat", False)], "chips")
        wrong = browser.one(browser.id("chips") + " .asyndm-wrong")
        assert wrong.text == "cat#2" and "only 1 of these" in str(wrong.get_attribute("title"))
        for number in (1, 2):
            scripts = {"AsynDM": {"args": [{"objects": f"cat#{number}"}]}}
            job = {"prompt": prompt, "steps": 2, "width": 64, "height": 64, "alwayson_scripts": scripts}
            if number == 1:
                page.txt2img("tiny-sd1", **job)
            else:
                with pytest.raises(ApiError, match=r"'cat' \(number 2\) was not found"):
                    page.txt2img("tiny-sd1", **job)

    def test_another_language_is_told(self, browser: Browser) -> None:
        browser.write("#txt2img_prompt textarea", "ein Hund auf einer Wiese")
        browser.switch()
        wait(lambda: "English prompts only" in browser.one(browser.id("chips")).text, "a word about the language")
        browser.write(browser.id("objects") + " textarea", "Hund, Hund#2")
        wait(lambda: browser.chips() == [("Hund", True), ("Hund#2", False)], "chips")

    def test_a_name_is_one_chip(self, browser: Browser) -> None:
        browser.write("#txt2img_prompt textarea", "Barack Obama and a red cat in New York")
        browser.switch()
        wait(lambda: browser.chips() == [("Barack Obama", True), ("cat", True)], "chips")

    def test_each_tab_has_its_own(self, browser: Browser) -> None:
        browser.write("#img2img_prompt textarea", "a lighthouse at dusk")
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch(True, "img2img")
        assert wait(lambda: browser.chips("img2img"), "chips")[0] == ("lighthouse", True)
        assert browser.chips("txt2img") == []


def test_the_curve_follows_its_controls(browser: Browser) -> None:
    def lag() -> str:
        return browser.run("return arguments[0].textContent", browser.one(browser.id("plot") + " .asyndm-lag"))

    def middle() -> float:
        """Height of the objects' curve half way, from 0 at the bottom to 1."""
        points = str(browser.one(browser.id("plot") + " .asyndm-slow").get_attribute("d"))[1:].split("L")
        return 1 - (float(points[len(points) // 2].split()[1]) - 8) / 104

    browser.switch()
    assert lag() == "18 %" and middle() == pytest.approx(0.5 + 0.7 / 4, abs=0.01)
    browser.write(browser.id("strength") + " input[type=number]", 1)
    wait(lambda: lag() == "25 %", "the lag at strength 1")
    assert middle() == pytest.approx(0.75, abs=0.01)
    browser.select(browser.id("curve"), "piecewise linear")
    wait(lambda: lag() == "50 %", "the lag of the other curve")
    browser.write(browser.id("strength") + " input[type=number]", 0)
    wait(lambda: lag() == "0 %", "no lag")
    assert middle() == pytest.approx(0.5, abs=0.01)


def test_the_plot_shows_each_object_s_clock(browser: Browser) -> None:
    def clocks() -> list[list[float]]:
        """Heights of each, from 0 at the bottom to 1, over the steps."""
        drawn = str(browser.one(browser.id("plot") + " .asyndm-slow").get_attribute("d"))[1:].split("M")
        return [[1 - (float(point.split()[1]) - 8) / 104 for point in one.split("L")] for one in drawn]

    browser.write("#txt2img_prompt textarea", "a cat eating a sandwich")
    browser.switch()
    browser.unfold("advanced")
    wait(browser.chips, "chips")
    assert len(clocks()) == 1, "together"
    browser.select(browser.id("order"), "in turn")
    cat, sandwich = wait(lambda: len(clocks()) == 2 and clocks(), "a clock for each")
    third, end = len(cat) // 3, len(cat) - 1
    assert cat[third] == pytest.approx(2 / 3 + 0.7 * 2 / 9, abs=0.01) and sandwich[third] == pytest.approx(cat[third])
    assert cat[2 * third] == pytest.approx(cat[third] / 2, abs=0.01) and cat[end] == pytest.approx(0, abs=0.01)
    assert sandwich[2 * third] == pytest.approx(1 / 3 + 0.7 * 2 / 9, abs=0.01)
    titles = [chip.get_attribute("title") for chip in browser.all(browser.id("chips") + " .asyndm-chip")]
    more = "click to take it out. Drag it, or press an arrow key, to draw it earlier or later"
    assert titles == [f"Slow until {share} of the steps: {more}" for share in ("33%", "67%")]
    browser.write(browser.id("objects") + " textarea", "sandwich > cat > sandwich")
    wait(lambda: "goes round in a circle" in browser.one(browser.id("chips")).text, "a word about the circle")
    browser.write(browser.id("objects") + " textarea", "sandwich > cat")
    wait(
        lambda: [one.text for one in browser.all(browser.id("chips") + " [data-turn]")] == ["sandwich", "cat"], "chips"
    )
    browser.to(browser.one(browser.id("chips") + " .asyndm-chip")).click()
    wait(lambda: browser.value("objects") == "cat", "the order without the sandwich")
    wait(lambda: len(clocks()) == 1, "one clock")


def test_chips_are_moved(browser: Browser) -> None:
    browser.write("#txt2img_prompt textarea", "a cat eating a sandwich")
    browser.switch()
    chips_are_moved(browser)


def test_generate_see_and_send_on(browser: Browser, page: WebUI) -> None:
    """The way of a user: settings, pictures, and every control back from the infotext and in the other tab."""
    small(browser)
    browser.write("#txt2img_prompt textarea", "a red cat eating a sandwich")
    browser.switch()
    browser.unfold("advanced")
    browser.write(browser.id("objects") + " textarea", "cat:0.5, sandwich")
    browser.write(browser.id("strength") + " input[type=number]", 0.35)
    browser.select(browser.id("curve"), "exponential")
    browser.write(browser.id("threshold") + " input[type=number]", 1.4)
    browser.click(browser.id("soft") + " input")
    browser.write(browser.id("end") + " input[type=number]", 0.9)
    browser.select(browser.id("show"), "all")
    browser.generate()
    levels = page.get("/asyndm-probe/levels")
    assert len(levels) == SMALL["steps"]
    assert 0 < np.array(levels[0]["strength"]).max() <= 0.5
    wait(lambda: pictures(browser) == 4, "the image, the mask, the clock and the filmstrip")
    infotext = browser.one("#html_info_txt2img").text
    assert "AsynDM objects" in infotext and "AsynDM show: all" in infotext
    names = ("enabled", "objects", "strength", "curve", "threshold", "soft", "end", "show", "region", "hires")
    wanted = {name: browser.value(name) for name in names}
    assert wanted["enabled"] is True and wanted["soft"] is True and wanted["show"] == "all"

    browser.click("#txt2img_send_to_img2img")  # the button below the picture
    wait(lambda: browser.is_on("img2img"), "the panel of img2img switched on")
    wait(lambda: {name: browser.value(name, "img2img") for name in names} == wanted, "img2img's controls")

    with Browser(page.url) as again:
        assert {name: again.value(name) for name in names} != wanted
        again.write("#txt2img_prompt textarea", infotext)
        again.click("#txt2img_tools #paste")
        wait(lambda: {name: again.value(name) for name in names} == wanted, "pasted controls")
        if page.kind == "neo":  # a paste leaves its prompt as it is, with and without us
            again.write("#txt2img_prompt textarea", "a red cat eating a sandwich")
        wait(lambda: again.chips() == [("cat:0.5", True), ("sandwich", True)], "chips of what was pasted")


def test_paint_a_mask(browser: Browser, page: WebUI, tmp_path: Path) -> None:
    """Scenario 15 in txt2img: what is painted in the panel is what is slow."""
    from PIL import Image

    file = tmp_path / "picture.png"
    Image.new("RGB", (200, 200), (90, 120, 60)).save(file)
    small(browser)
    browser.write("#txt2img_prompt textarea", "a red cat eating a sandwich")
    browser.switch()
    browser.paint(browser.load_mask(file), [(-50, -50), (-2, -2)])
    browser.select(browser.id("region"), "mask")
    browser.mask_says("The mask is what you have painted")
    browser.generate()
    strength = np.array(page.get("/asyndm-probe/levels")[0]["strength"])[0]
    rows, columns = np.nonzero(strength)
    assert len(rows), "something is slow"
    assert strength.max() == pytest.approx(0.7)
    # A stroke down to the right, from the upper left of the middle to the middle.
    assert rows.min() >= 2 and columns.min() >= 2 and rows.max() < 22 and columns.max() < 22
    assert np.corrcoef(rows, columns)[0, 1] > 0.6
    assert len(rows) < 0.3 * strength.size


class TestMask:
    """Scenario 47: the panel says which mask would be used, and that is the one that is."""

    @staticmethod
    def picture(folder: Path, mode: str) -> Path:
        from PIL import Image, ImageDraw

        image = Image.new(mode, (200, 200), 0 if mode == "L" else (90, 120, 60))
        ImageDraw.Draw(image).rectangle((0, 0, 99, 199), fill=255 if mode == "L" else (200, 60, 30))
        image.save(folder / f"{mode}.png")
        return folder / f"{mode}.png"

    def test_a_removed_mask_is_not_used_any_more(self, browser: Browser, page: WebUI, tmp_path: Path) -> None:
        small(browser)
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch()
        browser.unfold("advanced")
        assert browser.is_shown("threshold") and browser.is_shown("soft") and not browser.is_shown("mask_invert")
        browser.load_mask(self.picture(tmp_path, "L"))
        browser.mask_says("There is a picture in Mask, but the region “objects” does not use it")
        browser.click(browser.id("mask_line") + " [data-press=to_mask]")
        wait(lambda: browser.value("region") == "mask", "the region that uses the mask")
        browser.mask_says("The mask is the picture itself")
        assert browser.is_shown("mask_invert")
        for name in (
            "objects",
            "order",
            "threshold",
            "soft",
            "mask_source",
            "smoothing",
            "min_area",
            "max_area",
            "hold_after",
        ):
            assert not browser.is_shown(name), name
        browser.generate()
        strength = np.array(page.get("/asyndm-probe/levels")[0]["strength"])[0]
        assert strength[:, :14].min() == pytest.approx(0.7) and strength[:, 18:].max() == 0, "the left half"
        infotext = browser.one("#html_info_txt2img").text
        assert "AsynDM region: mask" in infotext and "AsynDM mask: " in infotext
        assert "AsynDM threshold" not in infotext

        browser.remove_mask()
        browser.mask_says("There is no mask yet, and the region “mask” needs one")
        browser.generate()
        assert "the region 'mask' needs a mask" in browser.one("#html_log_txt2img").text

    def test_a_photo_is_no_mask_unasked(self, browser: Browser, tmp_path: Path) -> None:
        small(browser)
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch()
        browser.select(browser.id("region"), "mask")
        browser.load_mask(self.picture(tmp_path, "RGB"))
        browser.mask_says("Nothing is painted on the picture yet")
        browser.generate()
        assert "the region 'mask' needs a mask" in browser.one("#html_log_txt2img").text
        browser.click(browser.id("mask_line") + " [data-press=whole]")
        browser.mask_says("The mask is the picture itself")
        browser.generate()
        assert "AsynDM mask: " in browser.one("#html_info_txt2img").text

    def test_a_mask_does_not_come_back_with_an_infotext(self, browser: Browser) -> None:
        text = "a cat\nSteps: 6, Seed: 1, Size: 256x256, AsynDM strength: 0.5, AsynDM curve: quadratic, "
        browser.write("#txt2img_prompt textarea", text + "AsynDM region: mask, AsynDM mask: 9e87f5629d")
        browser.click("#txt2img_tools #paste")
        said = browser.mask_says("There is no mask yet, and the region “mask” needs one")
        assert "A mask does not come back with an infotext" in said
        assert browser.is_on() and browser.value("strength") == "0.5" and not browser.is_shown("threshold")


@pytest.mark.parametrize("width", [500, 760])
def test_narrow_windows(page: WebUI, width: int) -> None:
    with Browser(page.url, (width, 1400)) as browser:
        browser.write("#txt2img_prompt textarea", PROMPT + ", a lamp, a mirror, a bookshelf, a carpet, a clock")
        browser.switch()
        browser.unfold("advanced")
        wait(lambda: len(browser.chips()) == 8, "chips")
        script = """const panel = document.querySelector(arguments[0]);
            const edge = panel.getBoundingClientRect().right;
            return Array.from(panel.querySelectorAll('.asyndm-chip, svg, input, textarea, label'),
                (e) => e.getBoundingClientRect().right).filter((right) => right > edge + 1).length"""
        assert browser.run(script, browser.id("enabled")) == 0, "nothing sticks out"
