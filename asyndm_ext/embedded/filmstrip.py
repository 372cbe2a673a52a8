"""The pictures that explain a run: the three images side by side, and AsynDM's steps as a filmstrip."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw
from torch import Tensor

from asyndm_ext.drawing import (
    GAP,
    GREY,
    LINE,
    MARGIN,
    NOISIEST,
    ON_TIME,
    PAPER,
    SLOW,
    Sheet,
    clock_colours,
    enlarged,
    heading_height,
    mask_picture,
    to_picture,
)
from asyndm_ext.embedded.sampling import Job, Result, Variant
from asyndm_ext.strip import Layout, Row, draw, legend_of_clock, legend_of_slow

_VIEW = 384  # about the side of a picture in the comparison, pixels

# --- side by side ---------------------------------------------------------------------------------------------------

TITLES: dict[Variant, str] = {"plain": "Plain", "concave": "Plain, concave", "asyndm": "AsynDM"}


def explanation(job: Job, variant: Variant) -> str:
    """What this clock does, in a sentence."""
    if variant != "plain" and job.settings.strength == 0:
        return "Strength 0: nothing is held back."
    if variant == "plain":
        return "Every pixel loses its noise on the ordinary schedule."
    if variant == "concave" or job.settings.region == "everything":
        return "Every pixel keeps its noise for longer, whatever it shows."
    return f"Only the pixels {_where(job)} keep their noise for longer; the rest is on time."


def _where(job: Job) -> str:
    """Which pixels are slow, after "the pixels"."""
    objects = " and ".join(f'"{spec.name}"' for spec in job.settings.objects)
    inverted = "outside" if job.settings.mask_invert else "under"
    return {
        "objects": f"of {objects}",
        "mask": f"{inverted} the mask",
        "objects or mask": f"of {objects} and those {inverted} the mask",
        "objects and mask": f"of {objects} that are {inverted} the mask",
    }[job.settings.region]


def comparison(job: Job, results: Mapping[Variant, Result], pictures: Mapping[Variant, Image.Image]) -> Image.Image:
    """The three images, what was different, and how the noise went down in each."""
    factor = max(1, round(_VIEW / max(job.width, job.height)))
    width, height = job.width * factor, job.height * factor
    column = max(width, 300)
    page_width = 2 * MARGIN + 3 * column + 2 * 2 * GAP
    top = heading_height(job.prompt, page_width)
    text_height, chart_height = 122, 96
    sheet = Sheet.blank(page_width, top + height + text_height + chart_height + MARGIN + 22)
    sheet.heading(
        job.prompt,
        f"Same model, same starting noise, three schedules: {job.solver}, {job.steps} steps, seed {job.seed}",
    )
    for number, (variant, result) in enumerate(results.items()):
        x = MARGIN + number * (column + 2 * GAP)
        view = pictures[variant].resize((width, height), Image.Resampling.BICUBIC)
        sheet.framed(view, x + (column - width) // 2, top)
        y = top + height + 12
        sheet.text(x, y, TITLES[variant], size=19)
        sheet.paragraph(x, y + 27, column, explanation(job, variant), size=14, colour=GREY)
        _chart(sheet, result, (x, top + height + text_height, column, chart_height))
    return sheet.image


def _chart(sheet: Sheet, result: Result, box: tuple[int, int, int, int]) -> None:
    """Noise level over the steps: the least and the most noisy pixel."""
    x, y, width, height = box
    smooth = 4
    canvas = Image.new("RGB", (width * smooth, (height + 4) * smooth), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.line((0, height * smooth, width * smooth, height * smooth), fill=LINE, width=smooth)
    # The last step leads to a clean picture; a schedule that is there before it needs no flat end.
    end = [] if result.timestep_range[-1][1] <= 1 else [0.0]
    last = max(len(result.timestep_range) + len(end) - 1, 1)

    def path(levels: list[float]) -> list[tuple[float, float]]:
        return [
            ((2 + (width - 4) * i / last) * smooth, (height - (height - 4) * level / NOISIEST) * smooth)
            for i, level in enumerate([*levels, *end])
        ]

    least = path([low for low, _ in result.timestep_range])
    most = path([high for _, high in result.timestep_range])
    apart = any(low < high for low, high in result.timestep_range)
    if apart:
        draw.polygon([*least, *reversed(most)], fill=(253, 232, 208))
        draw.line(most, fill=SLOW, width=3 * smooth, joint="curve")
    all_slow = not apart and bool((result.strength > 0).all())
    draw.line(least, fill=SLOW if all_slow else ON_TIME, width=3 * smooth, joint="curve")
    sheet.image.paste(canvas.resize((width, height + 4), Image.Resampling.LANCZOS), (x, y))
    sheet.text(x, y - 20, "noise left", size=13, colour=GREY)
    sheet.text(x + width, y + height + 8, "steps", size=13, colour=GREY, anchor="ra")
    if apart:
        sheet.text(x + width, y - 2, "objects", size=13, colour=SLOW, anchor="ra")
        sheet.text(x + width, y + 15, "the rest", size=13, colour=ON_TIME, anchor="ra")


# --- filmstrip ------------------------------------------------------------------------------------------------------


def layout(job: Job, result: Result) -> Layout:
    """Where the filmstrip's cells are: rows 0 to 2 are prediction, slow pixels and clock."""
    return Layout.of(job.prompt, result.strength.shape, rows=3)


def filmstrip(job: Job, result: Result, decode: Callable[[Tensor], Tensor]) -> Image.Image:
    """Prediction, slow pixels and clock over the steps."""
    where = layout(job, result)
    settings = job.settings
    predictions = {step: to_picture(decode(result.predictions[step : step + 1])[0]) for step in where.steps}

    def noise(step: int) -> str:
        low, high = result.timestep_range[step]
        return f"{low:.0f}" + (f" to {high:.0f}" if high > low else "")

    rows = (
        Row(
            "Prediction",
            "What the model expects the finished picture to be, at this step.",
            lambda step: predictions[step].resize(where.cell, Image.Resampling.BICUBIC),
        ),
        Row(
            "Slow pixels",
            "Where the picture pays attention to the objects' words. These pixels are held back.",
            lambda step: mask_picture(predictions[step], result.strength[step], settings.strength, where.factor),
            lambda step: f"{result.slow_fraction[step]:.0%} of pixels",
            legend_of_slow,
        ),
        Row(
            "Clock",
            "How much noise each pixel still has. The objects have more of it than their surroundings.",
            lambda step: enlarged(clock_colours(result.timestep[step]), where.factor),
            noise,
            legend_of_clock(f"{NOISIEST} noise", f"{NOISIEST // 2 + 1}", "0 clean"),
        ),
    )
    details = f"AsynDM at strength {settings.strength:g}, {settings.curve}: {job.solver}, seed {job.seed}"
    return draw(where, job.prompt, details, rows)
