"""The moving picture of README.md: a picture comes about, and every pixel's clock runs down beside it.

    python tests/screenshots.py clocks

Numbers come from the run itself: the curves are the mean noise level of the pixels that lag in the end and of those
that don't.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from asyndm_ext.embedded.sampling import Job, Result, run_variant
from asyndm_ext.picture.drawing import GREY, LINE, NOISIEST, ON_TIME, SLOW, Sheet, clock_colours, enlarged, to_picture
from asyndm_ext.world.model import WorldModel

SIDE = 224  # of a picture, pixels
EDGE, GAP = 12, 16
TOP, BELOW = 30, 46
STEP, LAST = 180, 2600  # milliseconds a frame is shown
COLOURS = 224
LAGGING = 20.0  # timesteps: pixels this far behind at some step are called slow


Curves = tuple[list[float], list[float]]
"""Of the pixels on time and of the slow ones."""


def clocks(model: WorldModel, job: Job, path: Path) -> None:
    """Draw the picture with AsynDM and write a frame for each step and one for the end."""
    result = run_variant(model, job, "asyndm")
    pictures = [to_picture(model.decode(one[None])[0]) for one in result.predictions]
    behind = (result.timestep - result.timestep.amin(dim=(1, 2), keepdim=True)).amax(dim=0) > LAGGING
    curves = _way(result, ~behind), _way(result, behind)
    frames = [_frame(job, result, pictures, curves, step) for step in range(job.steps)]
    frames.append(_frame(job, result, pictures, curves, job.steps))
    palette = _palette(frames).quantize(COLOURS)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [STEP] * job.steps + [LAST]
    small[0].save(path, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)


def _way(result: Result, pixels: Tensor) -> list[float]:
    """The mean noise level of some pixels at each step, as a share of all of it; the last step begins almost clean."""
    return [float(level[pixels].mean()) / NOISIEST for level in result.timestep]


def _palette(frames: list[Image.Image]) -> Image.Image:
    """All frames below each other, so that they share their colours and no still part of them flickers."""
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(frames)))
    for k, frame in enumerate(frames):
        sheet.paste(frame, (0, k * height))
    return sheet


def _frame(job: Job, result: Result, pictures: list[Image.Image], curves: Curves, step: int) -> Image.Image:
    sheet = Sheet.blank(2 * EDGE + 3 * SIDE + 2 * GAP, TOP + SIDE + BELOW)
    left = [EDGE + column * (SIDE + GAP) for column in range(3)]
    for x, title in zip(left, ("the picture, as the model expects it", "noise left in each pixel", ""), strict=True):
        sheet.text(x, TOP - 8, title, size=12, colour=GREY, anchor="ls")
    sheet.framed(pictures[min(step, job.steps - 1)].resize((SIDE, SIDE), Image.Resampling.BICUBIC), left[0], TOP)
    level = result.timestep[step] if step < job.steps else torch.zeros_like(result.timestep[0])
    sheet.framed(enlarged(clock_colours(level), 1).resize((SIDE, SIDE), Image.Resampling.NEAREST), left[1], TOP)
    _plot(sheet, left[2], curves, step, job.steps)
    told = f"step {step + 1} of {job.steps}" if step < job.steps else "done"
    sheet.text(left[0], TOP + SIDE + 18, f"“{job.prompt}”", size=13)
    sheet.text(left[2] + SIDE, TOP + SIDE + 18, told, size=13, colour=GREY, anchor="ra")
    return sheet.image


def _plot(sheet: Sheet, x: int, curves: Curves, step: int, steps: int) -> None:
    """Noise over steps, as far as they are done."""
    draw: ImageDraw.ImageDraw = sheet.draw
    draw.rectangle((x - 1, TOP - 1, x + SIDE, TOP + SIDE), outline=LINE)
    for values, colour in zip(curves, (ON_TIME, SLOW), strict=True):
        points = [(x + SIDE * k / (steps - 1), TOP + SIDE * (1 - value)) for k, value in enumerate(values)]
        draw.line(points, fill=LINE, width=2)
        if step:
            draw.line(points[: step + 1], fill=colour, width=3)
        px, py = points[min(step, steps - 1)]
        draw.ellipse((px - 5, py - 5, px + 5, py + 5), fill=colour)
    sheet.text(x + 10, TOP + SIDE - 36, "everything else", size=13, colour=ON_TIME)
    sheet.text(x + 10, TOP + SIDE - 20, "the objects come later", size=13, colour=SLOW)
    sheet.text(x, TOP - 8, "all noise at the top, clean at the bottom", size=12, colour=GREY, anchor="ls")
