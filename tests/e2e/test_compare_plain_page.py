"""Compare with plain on the real page: one tick, one press, and the two pictures lie below the gallery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from .browser import Browser, wait
from .server import PROBE, REPOSITORY, WebUI
from .test_panel import small

pytestmark = [pytest.mark.xdist_group("webui"), pytest.mark.usefixtures("chromium")]

PROMPT = "a red cat eating a sandwich on a wooden table"
PLACE = "#asyndm_compared_txt2img"
OF_IMG2IMG = "#asyndm_compared_img2img"
CONTRAST = 4.5


@pytest.fixture(scope="module")
def page(chromium: None, launch: Callable[..., WebUI]) -> WebUI:
    return launch("compared", page=True, extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE})


@pytest.fixture
def browser(page: WebUI) -> Iterator[Browser]:
    with Browser(page.url) as opened:
        yield opened


def shown(browser: Browser, place: str = PLACE) -> bool:
    return bool(browser.run("return document.querySelector(arguments[0]).getClientRects().length > 0", place))


def said(browser: Browser, css: str, place: str = PLACE) -> str:
    script = "const one = document.querySelector(arguments[0]); return one.offsetParent ? one.innerText : ''"
    return str(browser.run(script, f"{place} {css}")).strip()


def pair(browser: Browser, place: str = PLACE) -> tuple[str, str]:
    """Addresses of the pictures with AsynDM and without."""
    script = "return ['after', 'before'].map((kind) => document.querySelector(`${arguments[0]} .asyndm-${kind}`).src)"
    return tuple(browser.run(script, place))


def gallery(browser: Browser, tab: str = "txt2img") -> list[str]:
    script = """return Array.from(document.querySelectorAll(arguments[0]), (one) => one.src)"""
    return list(browser.run(script, f"#{tab}_gallery .thumbnails img"))


def cut(browser: Browser) -> float:
    """Where the plain picture ends, from 0 to 1."""
    script = """const one = document.querySelector(arguments[0]), style = getComputedStyle(one);
        const right = style.clipPath.split(' ')[1];
        return right.endsWith('px') ? 1 - parseFloat(right) / one.clientWidth :
            1 - parseFloat(right.replace('calc(', '')) / 100"""
    return float(browser.run(script, f"{PLACE} .asyndm-before"))


def test_pairs_below_the_gallery(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    small(browser)
    browser.write("#txt2img_batch_count input[type=number]", 2)
    browser.write("#txt2img_prompt textarea", PROMPT)
    browser.switch()
    assert not shown(browser)
    browser.click(browser.id("compare_plain") + " input")
    browser.generate()
    wait(lambda: shown(browser), "the comparison")
    grid, *pictures = wait(lambda: gallery(browser)[:5], "the pictures")
    assert len(pictures) == 4 and grid not in pictures
    assert pair(browser) == (pictures[0], pictures[2])
    wait(lambda: said(browser, ".asyndm-differ").endswith("%"), "how many pixels differ")
    assert int(said(browser, ".asyndm-differ output").split()[0]) > 10 and said(browser, ".asyndm-same") == ""
    assert said(browser, ".asyndm-pairs output") == "1 / 2"

    browser.click(f"{PLACE} [data-by='1']")
    assert pair(browser) == (pictures[1], pictures[3]) and said(browser, ".asyndm-pairs output") == "2 / 2"
    buttons = "#txt2img_gallery .thumbnails .thumbnail-item"
    browser.run("document.querySelectorAll(arguments[0])[3].click()", buttons)  # the first plain one
    wait(lambda: pair(browser) == (pictures[0], pictures[2]), "the pair of the picture that was chosen")

    slider = browser.to(browser.one(f"{PLACE} input[type=range]"))
    assert "plain picture" in str(slider.get_attribute("aria-label"))
    assert cut(browser) == pytest.approx(0.5, abs=0.02)
    browser.run("arguments[0].focus()", slider)
    slider.send_keys(*[Keys.ARROW_LEFT] * 20)
    assert cut(browser) == pytest.approx(0.3, abs=0.02)

    # The same with strength 0: nothing differs, and that is said.
    browser.write(browser.id("strength") + " input[type=number]", 0)
    browser.write("#txt2img_batch_count input[type=number]", 1)
    browser.generate()
    wait(lambda: said(browser, ".asyndm-differ output") == "0 %", "no difference")
    assert "look the same" in said(browser, ".asyndm-same") and said(browser, ".asyndm-pairs") == ""

    # And without it the last comparison is gone.
    browser.click(browser.id("compare_plain") + " input")
    browser.generate()
    wait(lambda: not shown(browser), "no comparison any more")


def test_img2img_has_its_own(browser: Browser, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "photo.png")
    browser.run("document.querySelectorAll('#tabs button')[1].click()")  # as the hosts' own scripts open it
    wait(lambda: browser.one("#img2img_generate").is_displayed(), "the tab")
    browser.one("#img2img_image input[type=file]").send_keys(str(tmp_path / "photo.png"))
    there = "return Array.from(document.querySelectorAll('#img2img_image img')).some((one) => one.naturalWidth === 64)"
    wait(lambda: browser.run(there), "the photo")
    time.sleep(2)  # Forge's canvas hands it on a little later
    small(browser, "img2img")
    browser.write("#img2img_prompt textarea", PROMPT)
    browser.switch(True, "img2img")
    browser.click(browser.id("compare_plain", "img2img") + " input")
    browser.generate("img2img")
    wait(lambda: shown(browser, OF_IMG2IMG), "the comparison", 240)  # the first previews are results, too
    pictures = wait(lambda: gallery(browser, "img2img"), "the pictures")
    assert pair(browser, OF_IMG2IMG) == (pictures[-2], pictures[-1])
    wait(lambda: said(browser, ".asyndm-differ", OF_IMG2IMG).endswith("%"), "how many pixels differ")
    assert int(said(browser, ".asyndm-differ output", OF_IMG2IMG).split()[0]) > 10
    assert not shown(browser)


def test_a_narrow_window(page: WebUI) -> None:
    with Browser(page.url, (500, 1400)) as browser:
        narrow = {"width": 400, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        small(browser)
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch()
        browser.unfold("advanced")
        browser.click(browser.id("compare_plain") + " input")
        browser.generate()
        wait(lambda: shown(browser), "the comparison")
        script = """return Array.from(document.querySelectorAll(arguments[0]), (one) => one.getBoundingClientRect())
            .filter((box) => box.right > 401 || (box.left < -1 && box.width)).length"""
        for place in (PLACE, browser.id("enabled")):
            parts = ("img", "p", "h3", "button", "input[type=range]", "label", "svg")
            inside = ", ".join(f"{place} {css}" for css in parts)
            assert browser.run(script, inside) == 0, "nothing sticks out"
        assert browser.one(f"{PLACE} .asyndm-compare").size["width"] > 250


_CONTRASTS = """const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
    function behind(one) {
        const layers = [];
        for (let at = one; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) layers.push(colour);
            if (colour.length < 4) break;
        }
        let found = [255, 255, 255];
        for (const [r, g, b, alpha = 1] of layers.reverse()) {
            found = [r, g, b].map((v, i) => alpha * v + (1 - alpha) * found[i]);
        }
        return found;
    }
    const found = [];
    const walk = document.createTreeWalker(document.querySelector(arguments[0]), NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
        const one = node.parentElement;
        if (!node.textContent.trim() || !one.getClientRects().length) continue;
        const style = getComputedStyle(one);
        const [a, b] = [parse(one.closest('svg') ? style.fill : style.color), behind(one)];
        const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
        found.push([node.textContent.trim(), (high + 0.05) / (low + 0.05)]);
    }
    for (const field of document.querySelectorAll(arguments[0] + ' textarea[placeholder]')) {
        if (!field.placeholder || !field.getClientRects().length) continue;
        const [a, b] = [parse(getComputedStyle(field, '::placeholder').color), behind(field)];
        const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
        found.push([field.placeholder, (high + 0.05) / (low + 0.05)]);
    }
    return found"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_all_of_the_panel_can_be_read(page: WebUI, theme: str) -> None:
    """Every text against what is behind it, as WCAG counts; and what a screen reader is told of the controls."""
    with Browser(page.url, theme=theme) as browser:
        browser.write("#txt2img_prompt textarea", PROMPT)
        browser.switch()
        browser.unfold("advanced")
        browser.unfold("mask_fold")
        wait(browser.chips, "chips")
        browser.write(browser.id("objects") + " textarea", "cat, dragon")
        wait(lambda: ("dragon", False) in browser.chips(), "a chip that is not in the prompt")
        browser.run("document.activeElement.blur()")
        found = browser.run(_CONTRASTS, browser.id("enabled"))
        assert len(found) > 50
        mask = browser.id("mask_picture")  # gradio's own
        theirs = set(str(browser.run("return document.querySelector(arguments[0]).innerText", mask)).split("\n"))
        pale = {text: round(ratio, 2) for text, ratio in found if ratio < CONTRAST and text not in theirs}
        assert pale == {}
        names = """return Array.from(document.querySelectorAll(arguments[0] + ' .asyndm-field'), function(field) {
            const input = field.querySelector('input, textarea');
            const help = document.getElementById(input.getAttribute('aria-describedby'));
            const name = input.getAttribute('aria-label') ?? input.labels[0].innerText;
            return [name.trim(), help !== null && help.innerText.length > 15];
        })"""
        described = browser.run(names, browser.id("enabled"))
        assert len(described) > 15 and all(help for _, help in described)
        assert all(0 < len(name) < 40 for name, _ in described), "a name, not all of the help"
