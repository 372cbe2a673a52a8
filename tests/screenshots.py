"""Makes the pictures of docs/: what each control does to a picture of the little world, the panel, and the studio.

    python tests/screenshots.py effects     # the little world; minutes on a CPU
    python tests/screenshots.py clocks      # the moving picture of README.md
    python tests/screenshots.py studio      # Chromium
    python tests/screenshots.py panel       # a WebUI (ASYNDM_WEBUI) and Chromium
    python tests/screenshots.py             # all of them

``pip install -e '.[e2e]'`` brings what it needs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tests.conftest  # noqa: F401  (repairs torchvision beside a CPU build of torch, before diffusers imports it)
from asyndm_ext.embedded.job import Job, automatic_objects
from asyndm_ext.embedded.sampling import Result, run_variant
from asyndm_ext.picture.drawing import GAP, GREY, Sheet, clock_colours, enlarged, mask_picture, to_picture
from asyndm_ext.picture.strip import Layout, Row, draw, legend_of_clock, legend_of_slow
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import FIELDS, Settings
from asyndm_ext.ui.pictures import Recorder
from asyndm_ext.ui.preview import over_preview
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.scenes import scene
from asyndm_ext.world.words import read
from tests.clock_animation import clocks
from tests.e2e.browser import Browser, problem, wait
from tests.e2e.server import PROBE, REPOSITORY, Install, WebUI
from tests.e2e.studio import Studio, StudioBrowser
from tests.e2e.studio import problem as studio_problem

OUTPUT = REPOSITORY / "docs" / "images"
PROMPT, SEED, STEPS = "an owl under an umbrella", 1, 20
OBJECTS = parse_objects(automatic_objects(PROMPT))
EFFECTS: dict[str, tuple[Any, ...]] = {
    "strength": (0.0, 0.35, 0.7, 1.0),
    "curve": ("linear", "exponential", "quadratic", "head start", "piecewise linear"),
    "threshold": (0.3, 1.0, 2.0, 4.0),
    "region": ("objects", "everything"),
    "soft": (False, True),
    "smoothing": (0.0, 1.0, 2.0),
    "min_area": (0.0, 0.3, 0.6),
    "max_area": (1.0, 0.04, 0.02),
    "start": (0.0, 0.25, 0.45),
    "end": (1.0, 0.7, 0.3),
    "hold_after": (1.0, 0.2, 0.0),
}
"""The values of each control that are drawn."""
PREVIEWED = (4, 9, 14)
"""The steps whose live previews are drawn."""
PREVIEW = 192  # side of one, pixels
PHOTO = 384  # side of the picture to paint on, pixels
PALETTE = 128  # colours of a screenshot, which has few


def effects(output: Path, names: Sequence[str]) -> None:
    """One page per control: the picture, the slow pixels and the clocks half way, at several values."""
    model = load_world()
    shown(model, output)
    for name in names:
        path = output / f"{name}.png"
        effect(model, name, EFFECTS[name]).save(path, optimize=True)
        print(path, path.stat().st_size)


def shown(model: WorldModel, output: Path) -> None:
    """What Show shows: the same drawing as in a WebUI, of a run of the little world's model."""
    settings = Settings(enabled=True, objects=OBJECTS, show="all")
    result = run_variant(model, Job(PROMPT, SEED, settings, steps=STEPS), "asyndm")
    recorder = Recorder(settings)
    for step, (level, strength) in enumerate(zip(result.timestep, result.strength, strict=True)):
        recorder.watch(StepRecord(step, float(level.min()), level[None, None], strength[None, None]))
    picture = to_picture(model.decode(result.predictions[-1:])[0])
    for kind, page in recorder.pictures(picture.resize((256, 256), Image.Resampling.BICUBIC), 0):
        page.save(output / f"show-{kind}.png", optimize=True)
    live_preview(model, result, settings).save(output / "live-preview.png", optimize=True)


def live_preview(model: WorldModel, result: Result, settings: Settings) -> Image.Image:
    """Previews of a few steps with the slow pixels that were known by then."""
    sheet = Sheet.blank(len(PREVIEWED) * (PREVIEW + GAP) - GAP, PREVIEW + 24)
    for column, step in enumerate(PREVIEWED):
        preview = to_picture(model.decode(result.predictions[step : step + 1])[0])
        preview = preview.resize((PREVIEW, PREVIEW), Image.Resampling.BICUBIC)
        strength = result.strength[step - 1][None, None]
        left = column * (PREVIEW + GAP)
        sheet.image.paste(over_preview(preview, strength, settings.strongest), (left, 0))
        sheet.text(left, PREVIEW + 6, f"step {step + 1} of {STEPS}", size=12, colour=GREY)
    return sheet.image


def effect(model: WorldModel, name: str, values: Sequence[Any]) -> Image.Image:
    results, pictures = [], []
    for value in values:
        job = Job(PROMPT, SEED, Settings(**{"enabled": True, "objects": OBJECTS, name: value}), steps=STEPS)
        result = run_variant(model, job, "concave" if value == "everything" else "asyndm")
        results.append(result)
        pictures.append(to_picture(model.decode(result.predictions[-1:])[0]))
    return page(name, values, results, pictures)


def page(name: str, values: Sequence[Any], results: Sequence[Result], pictures: Sequence[Image.Image]) -> Image.Image:
    spec = next(field for field in FIELDS if field.name == name)
    half = STEPS // 2
    _, height, width = results[0].strength.shape
    layout = Layout.of(spec.label, (len(values), height, width), rows=3)

    def percent(column: int) -> str:
        return f"{results[column].slow_fraction[half]:.0%} of pixels"

    def noise(column: int) -> str:
        low, high = results[column].timestep_range[half]
        return f"{low:.0f}" + (f" to {high:.0f}" if high > low else "")

    def slow(column: int) -> Image.Image:
        return mask_picture(pictures[column], results[column].strength[half], 1.0, layout.factor)

    def clock(column: int) -> Image.Image:
        return enlarged(clock_colours(results[column].timestep[half]), layout.factor)

    def picture(column: int) -> Image.Image:
        return pictures[column].resize(layout.cell, Image.Resampling.BICUBIC)

    rows = (
        Row("Picture", "What comes out.", picture),
        Row("Slow pixels", f"At step {half + 1} of {STEPS}.", slow, percent, legend_of_slow),
        Row("Clock", "Noise left at that step.", clock, noise, legend_of_clock("all noise", "half", "clean")),
    )
    details = f"“{PROMPT}”, seed {SEED}, {STEPS} steps, the rest as it is by default"
    label: Callable[[int], str] = lambda column: str(values[column])  # noqa: E731
    return draw(layout, spec.label, details, rows, label)


def panel(output: Path, models: Path | None = None) -> None:
    """The panel in both themes and in a narrow window. ``models``: tiny checkpoints of the tests, if there are any."""
    install = Install.from_environment()
    reason = "set ASYNDM_WEBUI" if install is None else install.problem() or problem()
    if install is None or reason:
        raise SystemExit(f"no pictures of the panel: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        if models is None:
            models = Path(folder, "models")
            install.write_checkpoints(models)
        extensions = {"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE}
        with WebUI(install, models, data, extensions=extensions, page=True) as webui:
            for name, theme, size in (
                ("panel-dark", "dark", (1300, 1500)),
                ("panel-light", "light", (1300, 1500)),
                ("panel-narrow", "dark", (460, 1600)),
            ):
                shot(webui, output / f"{name}.png", theme, size)


def shot(webui: WebUI, path: Path, theme: str, size: tuple[int, int]) -> None:
    with Browser(webui.url, size, theme) as browser:
        browser.write("#txt2img_prompt textarea", "a red cat eating a sandwich on a wooden table, oil painting")
        browser.switch()
        wait(browser.chips, "chips")
        browser.click(browser.id("chips") + " .asyndm-chip:last-child")
        wait(lambda: [on for _, on in browser.chips()] == [True, True, False], "a chip switched off")
        browser.screenshot(path, browser.id("enabled"))
        if path.stem == "panel-dark":
            mask_control(browser, path.with_name("mask-control.png"))
    shrink(path)


def mask_control(browser: Browser, path: Path) -> None:
    """The picture to paint on, with a stroke."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        drawn = Image.fromarray(scene(read(PROMPT).text, SEED).image)
        drawn.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC).save(photo)
        canvas = browser.load_mask(photo)
        browser.paint(canvas, [(-30, 70), (-10, 90), (14, 90), (30, 70)])
        browser.screenshot(path, browser.id("mask_fold"))
    shrink(path)


def studio(output: Path) -> None:
    """The studio after a run, in both themes and on a telephone."""
    reason = studio_problem() or problem()
    if reason:
        raise SystemExit(f"no pictures of the studio: {reason}")
    with Studio() as started:
        for name, theme, size in (
            ("studio-light", "light", (1400, 1510)),
            ("studio-dark", "dark", (1400, 1510)),
            ("studio-narrow", "dark", (400, 1300)),
            ("studio-compare", "dark", (1000, 1000)),
        ):
            with StudioBrowser(started.url, size, theme) as browser:
                browser.resize(*size)
                wait(browser.chips, "chips")
                if name == "studio-compare":
                    browser.number("seed", SEED)
                    browser.click("#studio_views [data-view=compare]")
                browser.press_run(600)
                browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
                path = output / f"{name}.png"
                browser.driver.save_screenshot(str(path))
                save_small(path)


def save_small(path: Path) -> None:
    """A screenshot with pictures: in few colours their skies would have steps."""
    page = Image.open(path).convert("RGB")
    palette = page.quantize(256)
    page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(path, path.stat().st_size)


def shrink(path: Path) -> None:
    Image.open(path).convert("RGB").quantize(PALETTE).save(path, optimize=True)
    print(path, path.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("effects", "clocks", "studio", "panel", "all"), default="all")
    parser.add_argument("--only", nargs="+", choices=EFFECTS, default=list(EFFECTS), help="controls to draw")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--models", type=Path, help="tiny checkpoints that the tests have made; made anew otherwise")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.what in ("effects", "all"):
        effects(options.output, options.only)
    if options.what in ("clocks", "all"):
        path = options.output / "clocks.gif"
        clocks(load_world(), Job(PROMPT, SEED, Settings(enabled=True, objects=OBJECTS), steps=STEPS), path)
        print(path, path.stat().st_size)
    if options.what in ("studio", "all"):
        studio(options.output)
    if options.what in ("panel", "all"):
        panel(options.output, options.models)


if __name__ == "__main__":
    main()
