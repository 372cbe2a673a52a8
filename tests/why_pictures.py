"""Makes the pictures of docs/WHY.md, and tests what it says: python -m tests.why_pictures

Every curve and bar comes from the exact world's own denoiser (asyndm_ext/exact), under the conditions of
docs/EVALUATE.md and with its prompts and seeds. Two minutes on one core.

    python -m tests.why_pictures --only clocks decided push guidance  # the pictures
    python -m tests.why_pictures --only parts  # numbers: what is gained where one part alone is guided
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from asyndm_ext.clock.curves import curve_height
from asyndm_ext.evaluate.statistics import Difference
from asyndm_ext.exact.config import Asked
from asyndm_ext.exact.sampling import Conditions
from asyndm_ext.picture.drawing import GREY, MARGIN, ON_TIME, SLOW, Sheet, enlarged
from asyndm_ext.world.scenes import scene
from asyndm_ext.world.words import read
from tests.support.beliefs import (
    CLOCKS,
    CONCAVE,
    CONDITIONS,
    Belief,
    OneGuided,
    at_first,
    drawn,
    gain,
    outcomes,
    points,
    prompts,
    settings,
    watched,
    world,
)
from tests.support.plot import BLUE, BROWN, GREEN, RED, Plot

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 900  # of a picture, pixels
GUIDANCE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
PALE = (225, 226, 222)
EXAMPLE = Asked((2, 0))  # a shark in the desert
PALETTE = 256  # colours


def parts() -> None:
    """The test of the explanation: AsynDM's gain where only one part is guided."""
    for part, name in enumerate(("the ground", "the animal")):
        made = partial(OneGuided, part=part)
        plain = drawn(None, made=made)
        for clock, own in CLOCKS.items():
            if own is not None:
                one = gain(plain, drawn(own, made=made))
                print(f"only {name} is guided: plain {one.plain:.1%}, {clock} {points(one)}")


_CURVE = "piecewise linear"
MOMENTS = (0.4, 0.6, 0.75, 0.88, 1.0)
_VIEW, _CELL = 128, 2  # a scene, and a cell of its noise, pixels


def clocks() -> Image.Image:
    """Three clocks over one scene: noise is added to a true picture, region by region."""
    rows = (
        ("Ordinary clock", "Everything is equally noisy at every moment.", 0.0, 0.0),
        ("Concave for all", "Everything keeps its noise for longer, and nothing is clearer than the rest.", 1.0, 1.0),
        ("AsynDM", "Only the shark lags. When its turn comes, the desert around it can be seen already.", 0.0, 1.0),
    )  # fmt: skip
    left, gap, row = MARGIN + 144, 15, _VIEW + 58
    sheet = Sheet.blank(WIDTH, 76 + len(rows) * row + 30)
    sheet.text(MARGIN, 22, "Who is drawn when", size=22)
    details = f"{_CURVE}, strength 1; a scene drawn by code, with noise added: no model drew it"
    sheet.text(WIDTH - MARGIN, 30, details, size=14, colour=GREY, anchor="ra")
    text = read("a shark in the desert by day").text
    true = scene(text, 7, 9)
    for number, (title, said, ground, animal) in enumerate(rows):
        y = 70 + number * row
        sheet.text(MARGIN, y, title, size=17)
        sheet.text(left, y + 3, said, size=14, colour=GREY)
        small_clock(sheet, (MARGIN, y + 28, 118, _VIEW), ground, animal)
        for column, moment in enumerate(MOMENTS):
            heights = [curve_height(_CURVE, torch.tensor(moment), w).item() for w in (ground, animal)]
            view = noised(true.image, true.masks[0], heights)
            sheet.framed(view, left + column * (_VIEW + gap), y + 28)
    y = 70 + len(rows) * row - 20
    for column, moment in enumerate(MOMENTS):
        label = "the end" if moment == 1 else f"{moment:.0%} of the steps"
        sheet.text(left + column * (_VIEW + gap) + _VIEW // 2, y, label, size=14, colour=GREY, anchor="ma")
    return sheet.image


def small_clock(sheet: Sheet, box: tuple[int, int, int, int], ground: float, animal: float) -> None:
    plot = Plot(sheet, box, (0, 1), (0, 1.04))
    at = torch.linspace(0, 1, 61)
    for strength in (ground, animal):
        heights = curve_height(_CURVE, at, strength).tolist()
        plot.line(list(zip(at.tolist(), heights, strict=True)), SLOW if strength else ON_TIME)
    for moment in MOMENTS[:-1]:
        plot.rule(x=moment)
    plot.finish()
    x, y, width, height = box
    sheet.text(x + width, y + 4, "noise left", size=12, colour=GREY, anchor="ra")
    if ground != animal:
        sheet.text(x + width - 2, y + 36, "shark", size=13, colour=SLOW, anchor="ra")
        sheet.text(x + 8, y + height - 22, "desert", size=13, colour=ON_TIME)


def noised(image: NDArray[np.uint8], animal: NDArray[np.bool_], heights: Sequence[float]) -> Image.Image:
    """A true picture with the noise of Stable Diffusion's levels, the same normals in every one.

    It is noise in brightness, in coarse cells and few steps, so that a reader sees through it and the file stays small.
    """
    if max(heights) == 0:
        return Image.fromarray(image)
    side = image.shape[0] // _CELL
    cells = image.reshape(side, _CELL, side, _CELL, 3).mean((1, 3))
    alphas = world().alphas_cumprod.numpy()
    levels = np.where(animal[::_CELL, ::_CELL], heights[1], heights[0])[..., None]
    alpha = alphas[np.round(levels * (len(alphas) - 1)).astype(int)]
    signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
    normals = np.random.default_rng(5).standard_normal((side, side, 1)).round()
    x = (signal * (cells / 127.5 - 1) + noise * normals) / (signal + 1.5 * noise)  # as bright whatever the level
    return enlarged(np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8), _CELL)


def decided() -> Image.Image:
    """How sure the denoiser is of both parts at every step, and what came out."""
    sheet = Sheet.blank(WIDTH, 430)
    sheet.text(MARGIN, 22, "When the parts are decided, and what comes of it", size=22)
    details = "How sure the exact denoiser is of each part, step by step; below, what the finished pictures show."
    conditions = f"Guidance {CONDITIONS.guidance:g}, strength 1."
    sheet.text(MARGIN, 54, f"{details} {conditions}", size=14, colour=GREY)
    wide, gap = 246, 30
    for number, clock in enumerate(CLOCKS):
        found, seen = watched(clock)
        x = MARGIN + 36 + number * (wide + gap)
        sheet.text(x, 88, clock, size=17)
        plot = Plot(sheet, (x, 116, wide, 170), (1, len(seen)), (0, 1))
        for level in (0.0, 0.5, 1.0):
            plot.rule(y=level, label=f"{level:.0%}" if number == 0 else "")
        for step in (1, 10, 20, 30):
            plot.rule(x=step, label=str(step))
        ground, animal = ([(i + 1, getattr(one, part)) for i, one in enumerate(seen)] for part in ("ground", "animal"))
        plot.area(ground, animal, (253, 232, 208))
        plot.line(animal, SLOW)
        plot.line(ground, ON_TIME)
        plot.finish()
        if number == 0:
            sheet.text(x + wide - 6, 240, "both at once", size=14, colour=GREY, anchor="ra")
        else:
            sheet.text(x + 8, 121, "ground", size=14, colour=ON_TIME)
            sheet.text(x + wide - 20, 236, "animal", size=14, colour=SLOW, anchor="ra")
        outcome(sheet, found, (x, 322, wide, 30))
    # The axis of all three.
    sheet.text(MARGIN + 36 + round(wide * 14 / 29), 292, "step", size=13, colour=GREY, anchor="ma")
    for x, colour, said in zip((64, 158, 378, 598), _OUTCOMES, _SAID, strict=True):
        sheet.draw.rectangle((x, 371, x + 13, 384), fill=colour)
        sheet.text(x + 20, 368, said, size=14, colour=GREY)
    example = f"{len(prompts())} pictures each. Where the prompt is “{EXAMPLE}”, orange is a camel in the desert"
    sheet.text(64, 396, f"{example}, blue a shark in the sea.", size=13, colour=GREY)
    return sheet.image


_OUTCOMES = (GREEN, SLOW, ON_TIME, PALE)
_SAID = ("as asked", "the ground's usual animal", "the animal's usual ground", "anything else")


def outcome(sheet: Sheet, found: Tensor, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    start = float(x)
    for share, colour in zip(outcomes(found), _OUTCOMES, strict=True):
        end = start + share * width
        sheet.draw.rectangle((round(start), y, max(round(start), round(end) - 1), y + height), fill=colour)
        if share > 0.1:
            middle = round((start + end) / 2)
            sheet.text(middle, y + height // 2, f"{share:.0%}", size=15, colour=(255, 255, 255), anchor="mm")
        start = end


def push() -> Image.Image:
    """What guidance pushes for while the ground is noise and when it is clear; and over a whole run."""
    sheet = Sheet.blank(WIDTH, 456)
    sheet.text(MARGIN, 22, "What guidance pushes for", size=22)
    details = f"“{EXAMPLE}”, nothing to be seen of the animal yet. Ring: what the model expects without the prompt."
    sheet.text(MARGIN, 54, f"{details} Arrowhead: with it.", size=14, colour=GREY)
    for number, (clear, title) in enumerate(((False, "The ground is noise, too"), (True, "The desert is clear"))):
        arrows(sheet, MARGIN, 94 + number * 160, title, at_first(EXAMPLE, clear))
    x, y, wide, high = 560, 124, 312, 240
    sheet.text(x, 94, "In whole runs, over all 40 prompts", size=17)
    plot = Plot(sheet, (x, y, wide, high), (1000, 0), (0, 0.33))
    for level in (0.0, 0.1, 0.2, 0.3):
        plot.rule(y=level, label=f"{100 * level:+.0f}" if level else "0")
    for timestep in (1000, 750, 500, 250, 0):
        plot.rule(x=timestep, label=str(timestep))
    for clock, colour in _LINES.items():
        plot.line([(one.timestep, one.belief.net) for one in watched(clock)[1]], colour)
    plot.finish()
    sheet.text(x + wide, y + high + 26, "noise left in the animal", size=13, colour=GREY, anchor="ra")
    for place, (clock, colour) in enumerate(_LINES.items()):
        sheet.text(x + wide - 4, y + 6 + 21 * place, clock, size=14, colour=colour, anchor="ra")
    said = (
        "In points of probability. Guidance 5 adds four times this push to what the prompt alone gives; guidance 1 adds"
    )
    sheet.text(MARGIN, 422, f"{said} nothing.", size=14, colour=GREY)
    return sheet.image


_LINES = dict(zip(CLOCKS, (GREY, BLUE, GREEN), strict=True))


def arrows(sheet: Sheet, x: int, y: int, title: str, one: Belief) -> None:
    """From what is believed without the prompt to what is believed with it."""
    left, wide, high = x + 64, 270, 78
    sheet.text(x, y, title, size=17)
    plot = Plot(sheet, (left, y + 32, wide, high), (0, 1), (0, 1))
    for level in (0.0, 0.5, 1.0):
        plot.rule(x=level, label=f"{level:.0%}")
    rows = ((0.72, "shark", one.asked, GREEN), (0.25, "camel", one.rival, RED))
    for place, _, ends, colour in rows:
        plot.arrow(ends, place, colour)
    plot.finish()
    for place, name, ends, colour in rows:
        sheet.text(left - 12, plot.y(place), name, size=15, colour=colour, anchor="rm")
        amount = f"{100 * (ends[1] - ends[0]):+.0f}"
        sheet.text(plot.x(max(ends)) + 14, plot.y(place), amount, size=15, colour=colour, anchor="lm")
    sheet.text(left + wide + 24, y + 46, "shark over camel", size=13, colour=GREY)
    sheet.text(left + wide + 24, y + 64, f"{100 * one.net:+.0f}", size=24)


def guidance() -> Image.Image:
    """The gain over plain at every guidance."""
    sheet = Sheet.blank(WIDTH, 416)
    sheet.text(MARGIN, 22, "No guidance, no gain", size=22)
    details = f"Points more pictures right than with the ordinary clock, {len(prompts())} pairs, 95 % intervals"
    sheet.text(MARGIN, 54, f"{details}; strength 1, quadratic", size=14, colour=GREY)
    plot = Plot(sheet, (MARGIN + 36, 88, WIDTH - 2 * MARGIN - 36, 250), (0.6, 10.4), (-4, 11))
    for level in (-3, 0, 3, 6, 9):
        plot.rule(y=level, label=f"{level:+d}" if level else "0", strong=level == 0)
    ours: list[tuple[float, Difference]] = []
    for name, own, colour in (("concave for all", CONCAVE, BROWN), ("AsynDM", settings(), BLUE)):
        shift = 0.05 if name == "AsynDM" else -0.05
        gains = [(scale, gain(plainly(scale), drawn(own, at_guidance(scale)))) for scale in GUIDANCE]
        plot.line([(scale + shift, 100 * one.difference) for scale, one in gains], colour)
        for scale, one in gains:
            plot.whisker(scale + shift, 100 * one.low, 100 * one.difference, 100 * one.high, colour)
            print(f"guidance {scale:g}: plain {one.plain:.1%}, {name} {points(one)}")
        ours = gains
    plot.finish()
    sheet.text(plot.x(9), plot.y(7.4), "AsynDM", size=16, colour=BLUE, anchor="ma")
    sheet.text(plot.x(9), plot.y(-0.6), "concave for all", size=16, colour=BROWN, anchor="ma")
    for y, said in ((348, "CFG scale"), (376, "plain is right")):
        sheet.text(plot.x(9), y, said, size=14, colour=GREY, anchor="ma")
    for scale, one in ours:
        sheet.text(plot.x(scale), 347, f"{scale:g}", size=16, anchor="ma")
        sheet.text(plot.x(scale), 376, f"{one.plain:.0%}", size=14, colour=GREY, anchor="ma")
    return sheet.image


def at_guidance(scale: float) -> Conditions:
    return replace(CONDITIONS, guidance=scale)


@cache
def plainly(scale: float) -> Tensor:
    return drawn(None, at_guidance(scale))


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "clocks": clocks, "decided": decided, "push": push, "guidance": guidance}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*PICTURES, "parts"]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, help="(all)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        if name == "parts":
            parts()
            continue
        path = options.output / f"why-{name}.png"
        # Where there are many colours, the rare ones (a line, the sun) are to stay what they are.
        how = Image.Quantize.MAXCOVERAGE if name == "clocks" else Image.Quantize.MEDIANCUT
        PICTURES[name]().quantize(PALETTE, how).save(path, optimize=True)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
