"""The studio's page as people have it: looked at, read out, without a mouse, on a telephone, and with mistakes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from .browser import wait
from .studio import Studio, StudioBrowser

pytestmark = pytest.mark.usefixtures("chromium", "gradio_installed")

PROMPT = "a shark riding a bike"
SMALL = {"steps": 4, "width": 128, "height": 128, "seed": 3}

CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, below) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
};
const light = (colour) => colour.slice(0, 3).map((one) => one / 255)
    .map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const found = [];
const look = (element, colour, text) => {
    const back = behind(element), front = over(parse(colour), back);
    const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(text.trim().slice(0, 40) + ': ' + ratio.toFixed(2));
};
const isSeen = (element) => element.checkVisibility({opacityProperty: true, visibilityProperty: true}) &&
    !element.closest(':disabled, .asyndm-hidden, dialog');
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let count = 0;
while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.nodeValue;
    if (!text.trim() || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(element.tagName) || !isSeen(element)) continue;
    count++;
    const style = getComputedStyle(element);
    look(element, element.closest('svg') ? style.fill : style.color, text);
}
for (const field of document.querySelectorAll('input, textarea')) {
    if (!isSeen(field) || ['range', 'checkbox', 'radio', 'file'].includes(field.type)) continue;
    count++;
    look(field, getComputedStyle(field).color, field.value || field.id);
    if (field.placeholder) look(field, getComputedStyle(field, '::placeholder').color, field.placeholder);
}
return {count, found};
"""


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with Studio() as started:
        yield started


def opened(studio: Studio, size: tuple[int, int] = (1400, 1300), theme: str = "light") -> StudioBrowser:
    browser = StudioBrowser(studio.url, size, theme)
    browser.resize(*size)
    browser.prompt(PROMPT)
    for name, value in SMALL.items():
        browser.number(name, value)
    return browser


@pytest.fixture
def browser(studio: Studio) -> Iterator[StudioBrowser]:
    with opened(studio) as page:
        yield page


def keys(browser: StudioBrowser, *pressed: str) -> None:
    from selenium.webdriver import ActionChains

    for key in pressed:
        ActionChains(browser.driver).send_keys(key).perform()


# --- it always comes back -------------------------------------------------------------------------------------------


def test_one_step_and_on(browser: StudioBrowser) -> None:
    browser.number("steps", 1)
    browser.press_run()
    assert "Note: no pixel lagged behind, so this is the ordinary picture." in browser.status()
    assert not browser.is_running() and len(browser.pictures("#studio_step_view")) == 3
    browser.number("steps", 4)
    browser.press_run()
    assert "slow on average" in browser.status() and not browser.is_running()
    assert browser.one("#studio_step input[type=range]").get_property("max") == "4"
    assert browser.console() == []


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("#studio_steps input[type=number]", 999, "Steps must be between 1 and 150"),
        ("#asyndm_strength input[type=number]", 5, "Strength must lie between 0 and 1"),
        ("#studio_prompt textarea", "a shark riding a bik", "Did you mean bike"),
    ],
)
def test_an_error_is_said_once(browser: StudioBrowser, field: str, value: Any, says: str) -> None:
    wait(browser.chips, "chips")
    browser.write(field, value)
    time.sleep(1.5)  # whatever says so while it is typed
    browser.press_run()
    time.sleep(1)
    text = str(browser.run("return document.body.innerText"))
    assert text.count(says) == 1, text
    assert not browser.all(".toast-body") or not browser.one(".toast-body").is_displayed()
    assert browser.one("#studio_status [role=alert]").is_displayed() and not browser.is_running()
    browser.prompt("a penguin on a sled")
    assert not [one for one in browser.all("#studio_status [role=alert]") if one.is_displayed()], "it is another now"


def test_return_twice_draws_once(browser: StudioBrowser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.number("steps", 12)
    prompt = browser.one("#studio_prompt textarea")
    prompt.send_keys(Keys.ENTER)
    wait(browser.is_running, "the drawing")
    prompt.send_keys(Keys.ENTER)
    wait(lambda: not browser.is_running(), "the end")
    time.sleep(2)
    assert not browser.is_running() and len(browser.all(".studio-thumbnail")) == 1


def test_an_answer_that_gradio_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises behind our functions, which hear nothing of it."""
    from asyndm_ext.studio.engine import Engine
    from asyndm_ext.studio.server import Server
    from asyndm_ext.world.model import load_world

    def broken(*arguments: Any) -> None:
        raise RuntimeError("gradio is broken")

    server = Server(Engine(load_world()))
    try:
        url = server.start("127.0.0.1", 0, browser=False).rstrip("/")
        (slider,) = [one for one in server.blocks.blocks.values() if getattr(one, "elem_id", "") == "studio_step"]
        with StudioBrowser(url) as browser:
            browser.number("steps", 3)
            with monkeypatch.context() as patched:
                patched.setattr(type(slider), "postprocess", broken)
                browser.press_run()
            assert "ended without a picture" in browser.one("#studio_status [role=alert]").text
            assert not browser.is_running() and browser.one("#studio_interrupt").get_property("disabled")
            assert "gradio is broken" not in str(browser.run("return document.body.innerText"))
            browser.press_run()
            assert len(browser.pictures()) == 3
    finally:
        server.stop()


# --- pictures -------------------------------------------------------------------------------------------------------


def test_the_lightbox(browser: StudioBrowser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.press_run()
    first = browser.one(".studio-zoom")
    small = first.size["width"]
    browser.run("arguments[0].focus()", first)
    keys(browser, Keys.ENTER)
    box = browser.one("dialog.studio-lightbox")
    assert box.get_property("open") and browser.one(".studio-lightbox img").size["width"] > 2.5 * small
    titles = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT):
        titles.append(browser.one(".studio-lightbox figcaption b").text)
        keys(browser, key)
    assert titles == ["Plain (1 of 6)", "Plain, concave (2 of 6)", "AsynDM (3 of 6)", "Plain, concave (2 of 6)",
                      "Plain (1 of 6)"]  # fmt: skip
    assert browser.one(".studio-lightbox figcaption b").text == "Clock (6 of 6)", "round and round"
    assert browser.one(".studio-lightbox img").get_property("src") == browser.pictures("#studio_step_view")[2]
    for button in browser.all(".studio-lightbox button"):
        place = button.rect
        assert place["x"] >= 0 and place["x"] + place["width"] <= 1400 and place["y"] >= 0
    keys(browser, Keys.ESCAPE)
    assert not box.get_property("open")
    assert browser.run("return document.activeElement === arguments[0]", first), "the focus is where it was"
    browser.click(".studio-zoom")
    browser.one(".studio-close").click()
    assert not box.get_property("open")


def test_before_and_after(browser: StudioBrowser) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.press_run()
    browser.one("#studio_views [data-view=compare]").click()
    slider = browser.one(".asyndm-compare input")
    plain, _, ours = browser.pictures(".studio-side-by-side")
    assert not browser.one(".studio-zoom").is_displayed() and browser.one(".asyndm-compare").is_displayed()
    assert plain != ours

    def cut() -> float:
        script = "return getComputedStyle(document.querySelector('.asyndm-before')).clipPath"
        width = browser.one(".asyndm-compare").size["width"]
        written = str(browser.run(script))
        if "calc" in written or "%" in written:
            return float(written.split()[1].removesuffix("%").removeprefix("calc(").removesuffix("%")) / 100
        return float(written.split()[1].removesuffix("px")) / width

    assert cut() == pytest.approx(0.5, abs=0.01)
    browser.run("arguments[0].focus()", slider)
    keys(browser, *[Keys.ARROW_RIGHT] * 10)
    assert cut() == pytest.approx(0.4, abs=0.01)
    browser.to(slider)
    width = slider.size["width"]
    ActionChains(browser.driver).move_to_element_with_offset(slider, -width // 4, 0).click().perform()
    assert cut() == pytest.approx(0.75, abs=0.03)
    at = slider.rect
    y = browser.run("return arguments[0].getBoundingClientRect().y", slider) + at["height"] / 2
    for kind, x in (("touchStart", 0.25), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
        points = [] if x is None else [{"x": at["x"] + x * width, "y": y}]
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait(lambda: abs(cut() - 0.2) < 0.05, "a finger")
    browser.press_run()
    assert cut() == pytest.approx(0.2, abs=0.05), "it stays where it was"
    assert float(browser.one(".asyndm-compare input").get_property("value")) == pytest.approx(80, abs=5)


def test_right_or_wrong() -> None:
    """Under each picture, and beside the enlarged one."""
    from asyndm_ext.studio.engine import Engine
    from asyndm_ext.studio.server import Server
    from asyndm_ext.world.judge import Seen
    from asyndm_ext.world.model import load_world

    class Judged:
        counts = iter(2 * [{"shark": 1}, {"shark": 2, "bike": 1}, {"shark": 1, "bike": 1}])

        def see(self, pictures: Any) -> list[Seen]:
            return [Seen(next(self.counts), "street", "day", "red", uses=True)]

    server = Server(Engine(load_world(), Judged()))  # type: ignore[arg-type]
    try:
        url = server.start("127.0.0.1", 0, browser=False).rstrip("/")
        for theme in ("light", "dark"):
            with StudioBrowser(url, theme=theme) as browser:
                browser.number("steps", 2)
                browser.press_run()
                said = [one.text for one in browser.all(".studio-verdict")]
                assert [one.split()[:2] for one in said] == [["✗", "Wrong:"], ["✗", "Wrong:"], ["✓", "Right:"]]
                captions = [one.text for one in browser.all("#studio_gallery .studio-side-by-side figcaption")]
                assert all(one.startswith(verdict + "\n") for one, verdict in zip(captions, said, strict=True))
                assert browser.run(CONTRAST)["found"] == []
                browser.click(".studio-zoom")
                assert f"Plain (1 of 6) {said[0]} Every" in browser.one(".studio-lightbox figcaption").text
    finally:
        server.stop()


@pytest.mark.parametrize(("width", "columns", "wide"), [(1400, 2, 250), (1099, 1, 320), (1000, 1, 290), (400, 1, 330)])
def test_how_large_pictures_are(studio: Studio, width: int, columns: int, wide: int) -> None:
    with opened(studio, (width, 1000)) as browser:
        browser.press_run()
        settings, results = (browser.one(f"#studio_{name}").rect for name in ("settings", "results"))
        assert (settings["y"] > results["y"] + results["height"] - 1) == (columns == 1), "pictures first"
        assert browser.one(".studio-zoom img").size["width"] >= wide
        assert browser.run("return document.documentElement.scrollWidth") <= width


# --- runs, links, the file, examples --------------------------------------------------------------------------------


def test_an_example_is_drawn_at_a_click(browser: StudioBrowser) -> None:
    browser.write(browser.id("objects") + " textarea", "shark")
    browser.click("#studio_examples button:nth-of-type(2)")
    wait(lambda: "pictures in" in browser.status(), "the pictures", 180)
    assert "objects: penguin, sled;" in browser.status()


def test_the_last_runs_and_links(browser: StudioBrowser, studio: Studio) -> None:
    browser.write(browser.id("strength") + " input[type=number]", 1)
    browser.press_run()
    first = browser.pictures("#studio_gallery .studio-side-by-side")
    address = str(browser.run("return location.href"))
    browser.switch(False)
    browser.number("seed", 4)
    browser.press_run()
    assert len(browser.pictures("#studio_gallery .studio-side-by-side")) == 1
    thumbnails = browser.all(".studio-thumbnail")
    assert [one.text for one in thumbnails] == ["2", "1"]
    thumbnails[1].click()
    wait(lambda: browser.pictures("#studio_gallery .studio-side-by-side") == first, "the first run's pictures")
    wait(lambda: browser.run("return location.href") == address, "its address")
    wait(browser.is_on, "the panel, open again")
    assert browser.one(browser.id("strength")).is_displayed()
    assert (browser.value("strength"), browser.one("#studio_seed input").get_property("value")) == ("1", "3")

    browser.number("seed", 77)
    browser.driver.refresh()
    wait(lambda: browser.run(browser.READY), "the page")
    wait(lambda: "Press Run to draw it" in browser.status(), "the link's settings")
    assert (browser.value("strength"), browser.one("#studio_seed input").get_property("value")) == ("1", "3")
    browser.press_run()
    assert browser.pictures("#studio_gallery .studio-side-by-side") == first

    with StudioBrowser(studio.url) as other:
        other.driver.get(address + "&run=1")
        wait(lambda: other.run(other.READY), "the page")
        wait(lambda: other.pictures("#studio_gallery .studio-side-by-side") == first, "the link's pictures", 180)
        assert "run=1" not in str(other.run("return location.href"))
        other.run("location.hash = 'steps=7&width=65'")
        wait(lambda: "width=65" in other.status(), "what the link cannot set")
        assert other.one("#studio_steps input[type=number]").get_property("value") == "7"


def test_a_link_to_the_old_shapes(studio: Studio) -> None:
    with StudioBrowser(studio.url) as browser:
        browser.driver.get(f"{studio.url}/#prompt=a+red+circle+and+a+blue+square&steps=7&run=1")
        browser.driver.refresh()
        wait(lambda: browser.run(browser.READY), "the page")
        wait(lambda: browser.all("#studio_status [role=alert]"), "a message")
        time.sleep(2)
        assert "from an earlier version, whose model drew coloured shapes" in browser.status()
        assert not browser.is_running() and not browser.all(".studio-thumbnail")
        assert browser.one("#studio_steps input[type=number]").get_property("value") == "7"
        browser.prompt(PROMPT)
        browser.press_run()
        assert len(browser.pictures()) == 3


@pytest.mark.parametrize("width", [1400, 400])
def test_what_can_be_drawn(studio: Studio, width: int) -> None:
    with opened(studio, (width, 1000)) as browser:
        assert not browser.one(".studio-words dl").is_displayed()
        browser.click(".studio-words summary")
        wait(lambda: browser.one(".studio-words dl").is_displayed(), "the words")
        assert "polar bear" in browser.one(".studio-words").text
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST)["found"] == []


def test_copy_and_save(browser: StudioBrowser) -> None:
    browser.press_run()
    browser.run("""window.copied = []; window.saved = [];
        navigator.clipboard.writeText = async (text) => window.copied.push(text);
        const click = HTMLAnchorElement.prototype.click;
        HTMLAnchorElement.prototype.click = function() {
            fetch(this.href).then((one) => one.text()).then((text) => window.saved.push([this.download, text]));
        };""")
    browser.click("#studio_copy")
    wait(lambda: browser.run("return window.copied"), "the link")
    own = str(browser.run("return location.origin + '/' + location.hash"))
    assert browser.run("return window.copied[0]") == own + "&run=1"
    assert browser.one("#studio_copy").text == "Copied"
    wait(lambda: browser.one("#studio_copy").text == "Copy link", "its name again")
    browser.click("#studio_save")
    name, text = wait(lambda: browser.run("return window.saved"), "the file")[0]
    assert name == "asyndm-3.html" and all(one in text for one in browser.pictures(".studio-side-by-side"))


def test_chips_are_moved(browser: StudioBrowser) -> None:
    browser.prompt("a penguin on a sled")
    wait(lambda: browser.chips() == [("penguin", True), ("sled", True)], "chips")
    browser.drag_chip("sled", onto="penguin")
    wait(lambda: browser.value("objects") == "sled > penguin", "an order")
    browser.drag_chip("sled", onto="penguin", finger=True)
    wait(lambda: browser.value("objects") == "penguin > sled", "the other order")


# --- for everybody --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(studio: Studio, theme: str) -> None:
    with opened(studio, theme=theme) as browser:
        wait(browser.chips, "chips")
        browser.unfold("mask_fold")
        browser.unfold("advanced")
        looked = browser.run(CONTRAST)
        assert looked["count"] > 60 and looked["found"] == []
        browser.number("steps", 1)
        browser.press_run()
        assert browser.run(CONTRAST)["found"] == []
        browser.one("#studio_views [data-view=compare]").click()
        browser.prompt("a shark riding a bik")
        time.sleep(1.5)
        assert browser.run(CONTRAST)["found"] == []
        browser.press_run()
        assert browser.run(CONTRAST)["found"] == []


def test_everything_has_a_name_and_a_ring(browser: StudioBrowser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.press_run()
    browser.unfold("advanced")
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "textbox", "slider", "spinbutton", "checkbox", "combobox", "listbox", "link", "radio"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert nameless == [] and browser.all("img:not([alt])") == []
    assert browser.run("return document.documentElement.lang") == "en"
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    bare, seen = [], 0
    for _ in range(40):
        keys(browser, Keys.TAB)
        script = """const one = document.activeElement, style = getComputedStyle(one);
            const has = (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
            return [one.tagName, one.id || one.getAttribute('aria-label') || one.className, has]"""
        tag, name, has = browser.run(script)
        seen += tag != "BODY"
        if tag != "BODY" and not has:
            bare.append((tag, name))
    assert seen > 20 and bare == []


def test_the_theme_is_kept(browser: StudioBrowser) -> None:
    dark = "return document.body.classList.contains('dark')"
    assert not browser.run(dark)
    browser.click(".studio-theme")
    assert browser.run(dark)
    for theme in ("light", "dark"):
        browser.open(theme)
        assert browser.run(dark), "what was chosen here counts more than the address"
    browser.click(".studio-theme")
    browser.driver.refresh()
    wait(lambda: browser.run(browser.READY), "the page")
    assert not browser.run(dark)


def test_nothing_comes_from_another_server(browser: StudioBrowser) -> None:
    """Some versions of gradio have addresses of others in their page: the browser refuses them."""
    script = """const done = arguments[0];
        document.addEventListener('securitypolicyviolation', (event) => done(event.blockedURI));
        new Image().src = 'https://another.invalid/picture.png';"""
    assert browser.driver.execute_async_script(script) == "https://another.invalid/picture.png"
