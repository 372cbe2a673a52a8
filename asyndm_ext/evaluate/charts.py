"""Two charts as SVG text: differences with their intervals, and means over a setting."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {
    "plain": "#6b7280",
    "concave": "#b7791f",
    "asyndm": "#1d6fb8",
    "fixed": "#7c3aed",
    "zigzag": "#b3261e",
    "seg": "#2e7d32",
    "s-cfg": "#a1467e",
    "cfg++": "#00796b",
    "asyndm+seg": "#5a8f00",
    "asyndm+s-cfg": "#c2417c",
    "asyndm+cfg++": "#0891a5",
}
_WIDTH, _HEIGHT, _MARGIN = 340, 220, 46


@dataclass(frozen=True)
class Bar:
    """A row of :func:`forest`; ``text`` stands at its right, ``group`` above the first row of each group."""

    label: str
    kind: str
    value: float
    low: float
    high: float
    text: str
    group: str


@dataclass(frozen=True)
class _Shape:
    """Of a forest, in pixels: a row's height, what is beside the plot, how far labels stand above their row."""

    row: int
    left: int
    plot: int
    right: int
    above: int
    ticks: int


_BROAD = _Shape(row=22, left=250, plot=520, right=60, above=0, ticks=8)
_NARROW = _Shape(row=38, left=8, plot=292, right=48, above=15, ticks=4)


@dataclass(frozen=True)
class Line:
    """A method over a setting: x texts in the axis' order, mean, low and high for each."""

    kind: str
    points: Sequence[tuple[int, float, float, float]]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many."""
    span = max(high - low, 1e-12)
    unit = 10 ** math.floor(math.log10(span / about))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= span / about)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def forest(bars: Sequence[Bar], unit: str) -> str:
    """Differences from plain, each a dot with its interval; plain is the line at 0. For screens and for phones."""
    known = [bar for bar in bars if not math.isnan(bar.value)]
    if not known:
        return ""
    return "".join(
        f'<div class="{name}">{_forest(known, unit, shape)}</div>'
        for name, shape in (("broad", _BROAD), ("narrow", _NARROW))
    )


def _forest(bars: Sequence[Bar], unit: str, shape: _Shape) -> str:
    ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if not math.isnan(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return round(shape.left + (value - low) / (high - low) * shape.plot, 1)

    parts, y, group = [], 14, ""
    for bar in bars:
        if bar.group != group:
            group, y = bar.group, y + 20
            parts.append(f'<text x="0" y="{y - 15}" class="group">{escape(group)}</text>')
        colour = COLOURS.get(bar.kind, "#777")
        y += shape.above
        place = (
            f'x="{shape.left}" y="{y - 10}"' if shape.above else f'x="{shape.left - 8}" y="{y + 4}" text-anchor="end"'
        )
        parts.append(f"<text {place}>{escape(bar.label)}</text>")
        if not math.isnan(bar.low):
            ends_at = f'x1="{x(bar.low)}" x2="{x(bar.high)}"'
            parts.append(f'<line {ends_at} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<circle cx="{x(bar.value)}" cy="{y}" r="4" fill="{colour}"/>'
            f'<text x="{shape.left + shape.plot + 8}" y="{y + 4}" class="small">{escape(bar.text)}</text>'
        )
        y += shape.row - shape.above
    grid = "".join(
        f'<line x1="{x(t)}" x2="{x(t)}" y1="2" y2="{y - 8}" class="{"zero" if t == 0 else "grid"}"/>'
        f'<text x="{x(t)}" y="{y + 8}" text-anchor="middle" class="small">{"0" if t == 0 else f"{t:+g}"}</text>'
        for t in ticks(low, high, shape.ticks)
    )
    # Centred below the plot where that has room for it.
    below = shape.left + shape.plot / 2
    caption = "".join(
        f'<text x="{below}" y="{y + 24 + 14 * number}" text-anchor="middle" class="small">{escape(line)}</text>'
        for number, line in enumerate(textwrap.wrap(unit, shape.plot // 6))
    )
    height = y + 30 + 14 * (caption.count("<text") - 1)
    return _svg(shape.left + shape.plot + shape.right, height, grid + "".join(parts) + caption)


def lines(title: str, names: Sequence[str], series: Sequence[Line], unit: str) -> str:
    """Means over the values of a setting, with their intervals."""
    values = [
        v for line in series for _, mean, low, high in line.points for v in (mean, low, high) if not math.isnan(v)
    ]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + pad
    right, bottom = _WIDTH - 14, _HEIGHT - 40

    def x(place: float) -> float:
        return round(_MARGIN + 18 + place * (right - _MARGIN - 36) / max(len(names) - 1, 1), 1)

    def y(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - 26), 1)

    parts = [f'<text x="{_MARGIN}" y="14" class="group">{escape(title)}</text>']
    for t in ticks(low, high):
        parts.append(f'<line x1="{_MARGIN}" x2="{right}" y1="{y(t)}" y2="{y(t)}" class="grid"/>')
        parts.append(f'<text x="{_MARGIN - 5}" y="{y(t) + 4}" text-anchor="end" class="small">{t:g}</text>')
    for place, name in enumerate(names):
        parts.append(f'<text x="{x(place)}" y="{bottom + 16}" text-anchor="middle" class="small">{escape(name)}</text>')
    for number, line in enumerate(series):
        colour = COLOURS.get(line.kind, "#777")
        off = 0.06 * (number - (len(series) - 1) / 2) if len(names) > 1 else 0.0
        there = [point for point in line.points if not math.isnan(point[1])]
        path = " ".join(f"{x(place + off)},{y(mean)}" for place, mean, _, _ in there)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for place, mean, below, above in there:
            at = x(place + off)
            if not math.isnan(below):
                parts.append(f'<line x1="{at}" x2="{at}" y1="{y(below)}" y2="{y(above)}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{at}" cy="{y(mean)}" r="3" fill="{colour}"/>')
    parts.append(f'<text x="{_MARGIN}" y="{_HEIGHT - 6}" class="small">{escape(unit)}</text>')
    return _svg(_WIDTH, _HEIGHT, "".join(parts))


def legend(kinds: Sequence[str]) -> str:
    """What the colours mean, as HTML."""
    return " ".join(
        f'<span class="key" style="--c:{COLOURS.get(kind, "#777")}">{escape(kind)}</span>' for kind in kinds
    )


def _svg(width: float, height: float, inside: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">{inside}</svg>'
