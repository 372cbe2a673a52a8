"""The pictures that explain a run: the three images side by side, and AsynDM's steps as a filmstrip.

Drawn with PIL alone. Cells of maps are enlarged by whole factors without smoothing, so a latent pixel is a square and
its colour is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from asyndm_ext.embedded.sampling import Job, Result, Variant

PAPER, INK, GREY, LINE = (250, 250, 247), (32, 34, 38), (112, 116, 122), (214, 214, 208)
SLOW, ON_TIME = (240, 120, 20), (96, 110, 130)
# Noise level 0 to 999 on the clock: light where the picture is clear, dark where it is noise.
CLOCK_COLOURS = ((253, 245, 205), (252, 200, 110), (240, 125, 70), (190, 55, 105), (105, 25, 110), (25, 15, 60))
NOISIEST = 999
COLUMNS = 9
MARGIN, GAP = 28, 10
_VIEW, _CELL = 384, 128  # about the side of a picture in the comparison and of a cell in the filmstrip, pixels
_TITLE = 25  # letters, pixels
_TINT = 0.65


# --- small things ---------------------------------------------------------------------------------------------------


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """PIL's own font at a size; the small bitmap font where PIL was built without FreeType."""
    try:
        return ImageFont.load_default(size=size)
    except (ImportError, TypeError):
        return ImageFont.load_default()


def to_picture(image: Tensor) -> Image.Image:
    """``(3,H,W)`` in [0, 1] to RGB."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def clock_colours(timestep: Tensor) -> NDArray[np.uint8]:
    """Noise levels, any shape, to colours ``(...,3)``."""
    stops = np.array(CLOCK_COLOURS, dtype=np.float64)
    at = timestep.numpy() / NOISIEST * (len(stops) - 1)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def enlarged(cells: NDArray[np.uint8], factor: int) -> Image.Image:
    """``(h,w,3)`` with every cell as a square of ``factor`` pixels."""
    return Image.fromarray(cells.repeat(factor, axis=0).repeat(factor, axis=1))


def mask_picture(prediction: Image.Image, strength: Tensor, full: float, factor: int) -> Image.Image:
    """The prediction in pale grey, slow pixels ``(h,w)`` tinted by how slow they are; ``full`` is the deepest tint."""
    size = (strength.shape[1] * factor, strength.shape[0] * factor)
    pale = np.asarray(prediction.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    pale = (127 + pale / 2)[..., None]
    tint = (strength / full if full > 0 else torch.zeros_like(strength)).numpy() * _TINT
    tint = tint.repeat(factor, axis=0).repeat(factor, axis=1)[..., None]
    return Image.fromarray((pale * (1 - tint) + np.array(SLOW) * tint).round().astype(np.uint8))


@dataclass
class Sheet:
    """A page to write on."""

    image: Image.Image

    @classmethod
    def blank(cls, width: int, height: int) -> Sheet:
        return cls(Image.new("RGB", (width, height), PAPER))

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def framed(self, picture: Image.Image, x: int, y: int) -> None:
        """A picture with a hairline around it, so that a white one has an edge."""
        self.draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=LINE)
        self.image.paste(picture, (x, y))

    def text(
        self, x: int, y: int, text: str, *, size: int, colour: tuple[int, int, int] = INK, anchor: str = "la"
    ) -> None:
        self.draw.text((x, y), text, fill=colour, font=font(size), anchor=anchor)

    def heading(self, job: Job, details: str) -> None:
        """The prompt in large letters and what goes for the whole page below it."""
        below = self.paragraph(MARGIN, MARGIN, self.image.width - 2 * MARGIN, job.prompt, size=_TITLE)
        self.text(MARGIN, below + 4, details, size=15, colour=GREY)

    def paragraph(self, x: int, y: int, width: int, text: str, *, size: int, colour: tuple[int, int, int] = INK) -> int:
        """Text broken into lines of at most ``width``; returns the y below it."""
        for line in wrapped(text, width, size):
            self.text(x, y, line, size=size, colour=colour)
            y += round(size * 1.35)
        return y


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The lines of a text that is to fit into ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def heading_height(job: Job, page_width: int) -> int:
    """Where the content below :meth:`Sheet.heading` may begin."""
    return MARGIN + round(_TITLE * 1.35) * len(wrapped(job.prompt, page_width - 2 * MARGIN, _TITLE)) + 44


# --- side by side ---------------------------------------------------------------------------------------------------

_TITLES: dict[Variant, str] = {"plain": "Plain", "concave": "Plain, concave", "asyndm": "AsynDM"}


def _explanation(job: Job, variant: Variant) -> str:
    if variant != "plain" and job.settings.strength == 0:
        return "Strength 0: nothing is held back."
    if variant == "plain":
        return "Every pixel loses its noise on the ordinary schedule."
    if variant == "concave":
        return "Every pixel keeps its noise for longer, whatever it shows."
    objects = " and ".join(f'"{spec.name}"' for spec in job.settings.objects)
    return f"Only the pixels of {objects} keep their noise for longer; the rest is on time."


def comparison(job: Job, results: Mapping[Variant, Result], pictures: Mapping[Variant, Image.Image]) -> Image.Image:
    """The three images, what was different, and how the noise went down in each."""
    factor = max(1, round(_VIEW / max(job.width, job.height)))
    width, height = job.width * factor, job.height * factor
    column = max(width, 300)
    page_width = 2 * MARGIN + 3 * column + 2 * 2 * GAP
    top = heading_height(job, page_width)
    text_height, chart_height = 122, 96
    sheet = Sheet.blank(page_width, top + height + text_height + chart_height + MARGIN + 22)
    sheet.heading(
        job, f"Same model, same starting noise, three schedules: {job.solver}, {job.steps} steps, seed {job.seed}"
    )
    for number, (variant, result) in enumerate(results.items()):
        x = MARGIN + number * (column + 2 * GAP)
        view = pictures[variant].resize((width, height), Image.Resampling.BICUBIC)
        sheet.framed(view, x + (column - width) // 2, top)
        y = top + height + 12
        sheet.text(x, y, _TITLES[variant], size=19)
        sheet.paragraph(x, y + 27, column, _explanation(job, variant), size=14, colour=GREY)
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

_LABEL, _SCALE = 178, 120  # widths of the column of row titles and of the legend, pixels
_NOTE = 24  # height of the note below a cell, pixels
_ROWS = (
    ("Prediction", "What the model expects the finished picture to be, at this step."),
    ("Slow pixels", "Where the picture pays attention to the objects' words. These pixels are held back."),
    ("Clock", "How much noise each pixel still has. The objects have more of it than their surroundings."),
)


@dataclass(frozen=True)
class Layout:
    """Where the filmstrip's cells are.

    ``factor``: pixels of the page per latent pixel. ``steps``: the step of each column. ``top``: where the rows begin.
    """

    cell: tuple[int, int]
    factor: int
    steps: tuple[int, ...]
    top: int

    @classmethod
    def of(cls, job: Job, result: Result) -> Layout:
        """Columns are picked evenly, first and last step included."""
        count, height, width = result.strength.shape
        factor = max(1, round(_CELL / max(height, width)))
        columns = min(COLUMNS, count)
        picked = [round(i * (count - 1) / max(columns - 1, 1)) for i in range(columns)]
        blank = cls((width * factor, height * factor), factor, tuple(picked), top=0)
        return replace(blank, top=heading_height(job, blank.size[0]) + 18)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """The upper left corner of a cell."""
        pitch = max(self.cell[0], 80) + GAP
        return MARGIN + _LABEL + column * pitch, self.top + row * (max(self.cell[1], 112) + _NOTE + GAP)

    @property
    def size(self) -> tuple[int, int]:
        """Of the page."""
        right, bottom = self.origin(len(_ROWS), len(self.steps))
        return max(right + _SCALE + MARGIN, 640), bottom + MARGIN - GAP


def filmstrip(job: Job, result: Result, decode: Callable[[Tensor], Tensor]) -> Image.Image:
    """Prediction, slow pixels and clock over the steps."""
    layout = Layout.of(job, result)
    sheet = Sheet.blank(*layout.size)
    settings = job.settings
    sheet.heading(job, f"AsynDM at strength {settings.strength:g}, {settings.curve}: {job.solver}, seed {job.seed}")
    for row, (title, explanation) in enumerate(_ROWS):
        _, y = layout.origin(row, 0)
        sheet.text(MARGIN, y, title, size=18)
        sheet.paragraph(MARGIN, y + 26, _LABEL - 24, explanation, size=13, colour=GREY)
    for column, step in enumerate(layout.steps):
        prediction = to_picture(decode(result.predictions[step : step + 1])[0])
        cells = (
            prediction.resize(layout.cell, Image.Resampling.BICUBIC),
            mask_picture(prediction, result.strength[step], settings.strength, layout.factor),
            enlarged(clock_colours(result.timestep[step]), layout.factor),
        )
        low, high = result.timestep_range[step]
        notes = (
            "",
            f"{result.slow_fraction[step]:.0%} of pixels",
            f"{low:.0f}" + (f" to {high:.0f}" if high > low else ""),
        )
        for row, (cell, note) in enumerate(zip(cells, notes, strict=True)):
            x, y = layout.origin(row, column)
            sheet.framed(cell, x, y)
            sheet.text(x, y + layout.cell[1] + 5, note, size=12, colour=GREY)
        x, y = layout.origin(0, column)
        sheet.text(x, y - 20, f"step {step + 1}", size=13)
    _legend(sheet, layout)
    return sheet.image


def _legend(sheet: Sheet, layout: Layout) -> None:
    """What the colours mean, to the right of the rows that use them."""
    x, y = layout.origin(1, len(layout.steps))
    x += 6
    for number, (colour, meaning) in enumerate(((SLOW, "slow"), ((222, 222, 222), "on time"))):
        sheet.draw.rectangle((x, y + 24 * number, x + 14, y + 14 + 24 * number), fill=colour, outline=LINE)
        sheet.text(x + 22, y + 24 * number, meaning, size=13, colour=GREY)
    _, y = layout.origin(2, len(layout.steps))
    height = max(layout.cell[1], 112)
    levels = torch.linspace(NOISIEST, 0, height, dtype=torch.float64).unsqueeze(1).expand(-1, 16)
    sheet.framed(Image.fromarray(clock_colours(levels)), x, y)
    for share, meaning in ((0.0, f"{NOISIEST} noise"), (0.5, f"{NOISIEST // 2 + 1}"), (1.0, "0 clean")):
        sheet.text(
            x + 24,
            y + round(share * height),
            meaning,
            size=13,
            colour=GREY,
            anchor=("la", "lm", "ld")[round(share * 2)],
        )
