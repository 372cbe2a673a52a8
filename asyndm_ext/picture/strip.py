"""A filmstrip: rows of small pictures over the steps of a run, with what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from asyndm_ext.picture.drawing import GAP, GREY, LINE, MARGIN, NOISIEST, SLOW, Sheet, clock_colours, heading_height

COLUMNS = 9
_CELL = 128  # about the side of a cell, pixels
_LABEL, _SCALE = 178, 120  # widths of the column of row titles and of the legend, pixels
_NOTE = 24  # height of the note below a cell, pixels


@dataclass(frozen=True)
class Row:
    """A row. ``cell`` and ``note`` give the picture of a step and the words below it; ``legend`` draws what its
    colours mean at a place of the sheet, so high."""

    title: str
    explanation: str
    cell: Callable[[int], Image.Image]
    note: Callable[[int], str] = lambda step: ""
    legend: Callable[[Sheet, int, int, int], None] | None = None


@dataclass(frozen=True)
class Layout:
    """Where the cells are.

    ``factor``: pixels of the page per latent pixel. ``steps``: the step of each column. ``top``: where the rows begin.
    """

    cell: tuple[int, int]
    factor: int
    steps: tuple[int, ...]
    rows: int
    top: int = 0

    @classmethod
    def of(cls, heading: str, shape: Sequence[int], rows: int) -> Layout:
        """For maps ``(steps, h, w)``. Columns are picked evenly, first and last step included."""
        count, height, width = shape
        factor = max(1, round(_CELL / max(height, width)))
        columns = min(COLUMNS, count)
        picked = [round(i * (count - 1) / max(columns - 1, 1)) for i in range(columns)]
        blank = cls((width * factor, height * factor), factor, tuple(picked), rows)
        return replace(blank, top=heading_height(heading, blank.size[0]) + 18)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """The upper left corner of a cell."""
        pitch = max(self.cell[0], 80) + GAP
        return MARGIN + _LABEL + column * pitch, self.top + row * (self.row_height + _NOTE + GAP)

    @property
    def row_height(self) -> int:
        """Of a cell and what stands beside it."""
        return max(self.cell[1], 112)

    @property
    def size(self) -> tuple[int, int]:
        """Of the page."""
        right, bottom = self.origin(self.rows, len(self.steps))
        return max(right + _SCALE + MARGIN, 640), bottom + MARGIN - GAP


def step_label(step: int) -> str:
    """What stands above a column."""
    return f"step {step + 1}"


def draw(
    layout: Layout, heading: str, details: str, rows: Sequence[Row], label: Callable[[int], str] = step_label
) -> Image.Image:
    """The page."""
    sheet = Sheet.blank(*layout.size)
    sheet.heading(heading, details)
    for number, row in enumerate(rows):
        x, y = layout.origin(number, 0)
        sheet.text(MARGIN, y, row.title, size=18)
        sheet.paragraph(MARGIN, y + 26, _LABEL - 24, row.explanation, size=13, colour=GREY)
        for column, step in enumerate(layout.steps):
            x, y = layout.origin(number, column)
            sheet.framed(row.cell(step), x, y)
            sheet.text(x, y + layout.cell[1] + 5, row.note(step), size=12, colour=GREY)
            if number == 0:
                sheet.text(x, y - 20, label(step), size=13)
        if row.legend is not None:
            x, y = layout.origin(number, len(layout.steps))
            row.legend(sheet, x + 6, y, layout.row_height)
    return sheet.image


def legend_of_slow(sheet: Sheet, x: int, y: int, height: int) -> None:
    """Of :func:`~asyndm_ext.picture.drawing.mask_picture`."""
    for number, (colour, meaning) in enumerate(((SLOW, "slow"), ((222, 222, 222), "on time"))):
        sheet.draw.rectangle((x, y + 24 * number, x + 14, y + 14 + 24 * number), fill=colour, outline=LINE)
        sheet.text(x + 22, y + 24 * number, meaning, size=13, colour=GREY)


def legend_of_clock(noisy: str, middle: str, clean: str) -> Callable[[Sheet, int, int, int], None]:
    """Of :func:`~asyndm_ext.picture.drawing.clock_colours`, with these words at its marks."""

    def legend(sheet: Sheet, x: int, y: int, height: int) -> None:
        levels = torch.linspace(NOISIEST, 0, height, dtype=torch.float64).unsqueeze(1).expand(-1, 16)
        sheet.framed(Image.fromarray(clock_colours(levels)), x, y)
        for share, anchor, meaning in ((0.0, "la", noisy), (0.5, "lm", middle), (1.0, "ld", clean)):
            sheet.text(x + 24, y + round(share * height), meaning, size=13, colour=GREY, anchor=anchor)

    return legend
