"""A small plot on a sheet: drawn four times as large and scaled down, so that its lines are smooth."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from asyndm_ext.picture.drawing import GREY, LINE, PAPER, Sheet

Colour = tuple[int, int, int]
BLUE, BROWN, GREEN, RED = (29, 111, 184), (183, 121, 31), (46, 132, 86), (190, 62, 70)
_SMOOTH = 4
_EDGE = 6  # around the plot, so that a dot on its border is whole


class Plot:
    """Collects marks in the units of its axes; :meth:`finish` puts them on the sheet.

    Args:
        sheet: to draw on.
        box: left, top, width and height, pixels.
        across, up: the axes' ends; the first may be the larger one.
    """

    def __init__(
        self, sheet: Sheet, box: tuple[int, int, int, int], across: tuple[float, float], up: tuple[float, float]
    ) -> None:
        self._sheet, self._box, self._across, self._up = sheet, box, across, up
        _, _, width, height = box
        size = ((width + 2 * _EDGE) * _SMOOTH, (height + 2 * _EDGE) * _SMOOTH)
        self._canvas = Image.new("RGB", size, PAPER)
        self._draw = ImageDraw.Draw(self._canvas)

    def x(self, value: float) -> int:
        """Where a value is on the sheet, pixels from the left."""
        return round(self._box[0] + self._share(value, self._across) * self._box[2])

    def y(self, value: float) -> int:
        """Where a value is on the sheet, pixels from the top."""
        return round(self._box[1] + (1 - self._share(value, self._up)) * self._box[3])

    @staticmethod
    def _share(value: float, ends: tuple[float, float]) -> float:
        return (value - ends[0]) / (ends[1] - ends[0])

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (
            (_EDGE + self._share(x, self._across) * self._box[2]) * _SMOOTH,
            (_EDGE + (1 - self._share(y, self._up)) * self._box[3]) * _SMOOTH,
        )

    def rule(self, *, x: float | None = None, y: float | None = None, label: str = "", strong: bool = False) -> None:
        """A hairline across the plot, with a label beside it."""
        one, two = (x, x) if x is not None else self._across, (y, y) if y is not None else self._up
        ends = [self._at(one[0] or 0.0, two[0] or 0.0), self._at(one[1] or 0.0, two[1] or 0.0)]
        self._draw.line(ends, fill=GREY if strong else LINE, width=_SMOOTH)
        left, top, _, height = self._box
        if label and x is not None:
            self._sheet.text(self.x(x), top + height + 6, label, size=13, colour=GREY, anchor="ma")
        elif label and y is not None:
            self._sheet.text(left - 8, self.y(y), label, size=13, colour=GREY, anchor="rm")

    def line(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self._draw.line([self._at(*point) for point in points], fill=colour, width=3 * _SMOOTH, joint="curve")

    def area(self, one: Sequence[tuple[float, float]], two: Sequence[tuple[float, float]], colour: Colour) -> None:
        """What is between two lines."""
        self._draw.polygon([self._at(*point) for point in (*one, *reversed(two))], fill=colour)

    def whisker(self, x: float, low: float, middle: float, high: float, colour: Colour) -> None:
        """A dot with its interval."""
        self._draw.line([self._at(x, low), self._at(x, high)], fill=colour, width=2 * _SMOOTH)
        across, down = self._at(x, middle)
        r = 4 * _SMOOTH
        self._draw.ellipse((across - r, down - r, across + r, down + r), fill=colour)

    def arrow(self, ends: tuple[float, float], y: float, colour: Colour) -> None:
        """From one value to the other, at a height; a ring where it starts."""
        (start, level), (end, _) = self._at(ends[0], y), self._at(ends[1], y)
        head = (8 if end > start else -8) * _SMOOTH
        self._draw.line((start, level, end - head, level), fill=colour, width=4 * _SMOOTH)
        self._draw.polygon(
            [(end, level), (end - head, level - 7 * _SMOOTH), (end - head, level + 7 * _SMOOTH)], fill=colour
        )
        r = 5 * _SMOOTH
        self._draw.ellipse((start - r, level - r, start + r, level + r), fill=PAPER, outline=colour, width=2 * _SMOOTH)

    def finish(self) -> None:
        left, top, width, height = self._box
        small = self._canvas.resize((width + 2 * _EDGE, height + 2 * _EDGE), Image.Resampling.LANCZOS)
        self._sheet.image.paste(small, (left - _EDGE, top - _EDGE))
