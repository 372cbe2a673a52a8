"""The sheet of all seeds: a row for each, a column for each clock, what the judge says, and what AsynDM changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from asyndm_ext.embedded.filmstrip import TITLES, explanation
from asyndm_ext.embedded.job import VARIANTS
from asyndm_ext.embedded.rows import VISIBLE, Row, right
from asyndm_ext.embedded.sampling import Result
from asyndm_ext.picture.drawing import (
    GAP,
    GREY,
    INK,
    LINE,
    MARGIN,
    NOISIEST,
    ON_TIME,
    PAPER,
    SLOW,
    Sheet,
    font,
    heading_height,
    wrapped,
)
from asyndm_ext.world.telling import Opinion

RIGHT, WRONG = (28, 126, 72), (186, 56, 32)
CHANGED = (214, 0, 122)
_DEEPEST = 4 * VISIBLE
"""The difference from which on the colour is full."""
_COLUMN = 236  # the least width, for what stands above a column, pixels
_CHART = 62
_LETTERS, _LINE = 14, 19
_MARK = 16


def difference_picture(row: Row) -> Image.Image:
    """AsynDM's picture in pale grey, coloured where it looks different from plain."""
    light = np.asarray(row.drawn["asyndm"].picture.convert("L"), dtype=np.float64)[..., None]
    apart = row.difference.astype(np.float64)[..., None]
    tint = ((apart - VISIBLE / 2) / (_DEEPEST - VISIBLE / 2)).clip(0, 1)
    # Light and dark stay as they are, so that one sees what it is that has changed.
    coloured = np.array(CHANGED) * (1 - light / 510) + light / 2
    return Image.fromarray(((127 + light / 2) * (1 - tint) + coloured * tint).clip(0, 255).round().astype(np.uint8))


def changed_words(share: float) -> str:
    """How much of a picture looks different."""
    if share == 0:
        return "nothing"
    return "under 1% of the pixels" if share < 0.01 else f"{share:.0%} of the pixels"


@dataclass(frozen=True)
class Layout:
    """Where the pictures are.

    Attributes:
        view: width and height of a picture on the sheet.
        column, label: widths of a column and of the seeds' one on the left.
        top: of each row; behind the last one, where the sums stand.
        size: of the sheet.
    """

    view: tuple[int, int]
    column: int
    label: int
    top: tuple[int, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Layout:
        job = rows[0].job
        side = next(side for most, side in ((1, 320), (4, 256), (8, 192), (16, 160)) if len(rows) <= most)
        factor = min(side / (job.width * job.height) ** 0.5, 1.5 * side / max(job.size))
        view = (round(job.width * factor), round(job.height * factor))
        label = max(round(font(17).getlength(str(row.job.seed))) for row in rows) + 2 * GAP
        blank = cls(view, max(view[0], _COLUMN), max(label, 52), (), (0, 0))
        width = blank.x(len(VARIANTS) + 1) + MARGIN - 2 * GAP
        head = max(len(wrapped(text, blank.column, _LETTERS)) for text in _explanations(rows))
        y = heading_height(job.prompt, width) + 28 + head * _LINE + 32 + _CHART + 30
        top = [y]
        for row in rows:
            lines = [len(wrapped(words, blank.column - _MARK - 8, _LETTERS)) for words in _under(row)]
            top.append(top[-1] + view[1] + 10 + max(lines) * _LINE + 14)
        return cls(
            view, blank.column, blank.label, tuple(top), (width, top[-1] + (58 if _judged(rows) else 34) + MARGIN)
        )

    def x(self, column: int) -> int:
        """Where a column begins."""
        return MARGIN + self.label + column * (self.column + 2 * GAP)

    def picture(self, row: int, column: int) -> tuple[int, int]:
        """The upper left corner of a picture."""
        return self.x(column), self.top[row]


def comparison(rows: Sequence[Row]) -> Image.Image:
    """The sheet."""
    where, job = Layout.of(rows), rows[0].job
    sheet = Sheet.blank(*where.size)
    sheet.heading(
        job.prompt,
        f"In each row the same model and the same starting noise; only the clocks differ. {job.solver}, {job.steps}"
        f" steps, guidance {job.guidance:g}.",
    )
    _heads(sheet, where, rows)
    for number, row in enumerate(rows):
        y = where.top[number]
        sheet.text(MARGIN, y, "seed", size=13, colour=GREY)
        sheet.text(MARGIN, y + 17, str(row.job.seed), size=17)
        pictures = [*(row.drawn[variant].picture for variant in VARIANTS), difference_picture(row)]
        for column, picture in enumerate(pictures):
            view = picture.resize(where.view, Image.Resampling.BICUBIC)
            sheet.framed(view, *where.picture(number, column))
        below = y + where.view[1] + 10
        for column, variant in enumerate(VARIANTS):
            opinion = row.drawn[variant].opinion
            if opinion is not None:
                _say(sheet, where.x(column), below, where.column, opinion)
        sheet.text(where.x(len(VARIANTS)), below, changed_words(row.changed), size=_LETTERS, colour=GREY)
    _sums(sheet, where, rows)
    return sheet.image


def _explanations(rows: Sequence[Row]) -> list[str]:
    job = rows[0].job
    changed = "AsynDM's picture in grey, pink where it looks different from plain."
    return [*(explanation(job, variant) for variant in VARIANTS), changed]


def _under(row: Row) -> list[str]:
    """What stands under the pictures of a row."""
    opinions = [drawn.opinion for drawn in row.drawn.values()]
    return [*(str(one) for one in opinions if one), changed_words(row.changed)]


def _judged(rows: Sequence[Row]) -> bool:
    return right(rows, "plain") is not None


def _heads(sheet: Sheet, where: Layout, rows: Sequence[Row]) -> None:
    """What the columns are, once."""
    titles = [*(TITLES[variant] for variant in VARIANTS), "What changed"]
    bottom = where.top[0] - 30
    top = heading_height(rows[0].job.prompt, where.size[0])
    for column, (title, text) in enumerate(zip(titles, _explanations(rows), strict=True)):
        sheet.text(where.x(column), top, title, size=19)
        sheet.paragraph(where.x(column), top + 27, where.column, text, size=_LETTERS, colour=GREY)
    for column, variant in enumerate(VARIANTS):
        _chart(sheet, rows[0].drawn[variant].result, (where.x(column), bottom - _CHART, where.column, _CHART))
    _legend(sheet, where.x(len(VARIANTS)), bottom - _CHART)


def _legend(sheet: Sheet, x: int, y: int) -> None:
    for number, (share, meaning) in enumerate(((0.0, "the same"), (0.3, "a little different"), (0.85, "different"))):
        colour = tuple(round(190 * (1 - share) + channel * share) for channel in CHANGED)
        sheet.draw.rectangle((x, y + 22 * number, x + 14, y + 14 + 22 * number), fill=colour, outline=LINE)
        sheet.text(x + 22, y + 22 * number, meaning, size=13, colour=GREY)


def _say(sheet: Sheet, x: int, y: int, width: int, opinion: Opinion) -> None:
    """A mark and words: nobody has to tell two colours apart."""
    colour = RIGHT if opinion.right else WRONG
    sheet.image.paste(_mark(opinion.right, colour), (x, y))
    sheet.paragraph(x + _MARK + 8, y, width - _MARK - 8, str(opinion), size=_LETTERS, colour=colour)


def _mark(is_right: bool, colour: tuple[int, int, int]) -> Image.Image:
    """A tick or a cross in a disc."""
    n = 4 * _MARK
    canvas = Image.new("RGB", (n, n), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((0, 0, n - 1, n - 1), fill=colour)
    strokes = [[(17, 33), (28, 44), (47, 21)]] if is_right else [[(21, 21), (43, 43)], [(43, 21), (21, 43)]]
    for stroke in strokes:
        draw.line(stroke, fill=PAPER, width=8, joint="curve")
    return canvas.resize((_MARK, _MARK), Image.Resampling.LANCZOS)


def _sums(sheet: Sheet, where: Layout, rows: Sequence[Row]) -> None:
    """How many are right in each column, and what that is worth."""
    y = where.top[-1]
    sheet.draw.line((MARGIN, y, where.size[0] - MARGIN, y), fill=LINE)
    for column, variant in enumerate(VARIANTS):
        number = right(rows, variant)
        if number is not None:
            sheet.text(where.x(column), y + 10, f"right in {number} of {len(rows)}", size=16, colour=INK)
    known = _judged(rows)
    told = "Judged by a small network that was trained on true pictures of this world. " if known else ""
    sheet.text(
        where.x(0),
        y + 38 if known else y + 14,
        f'{told}So few seeds prove nothing; "asyndm evaluate" measures.',
        size=13,
        colour=GREY,
    )


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
    sheet.text(x + width, y + height + 6, "steps", size=13, colour=GREY, anchor="ra")
    if apart:
        sheet.text(x + width, y - 6, "objects", size=13, colour=SLOW, anchor="ra")
        sheet.text(x + width, y + 10, "the rest", size=13, colour=ON_TIME, anchor="ra")
