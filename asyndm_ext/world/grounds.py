"""The grounds: what a scene stands on and in front of, with horizon and texture, and what covers feet upon it.

Coordinates of a stage: x to the right and y downwards, both in [0, 1]. To add one: its function here, a row in
:data:`GROUNDS`, and a place in ``words.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from asyndm_ext.world.pen import BANDS, OVERSAMPLING, Colour, Point, averaged, smooth


class Stage:
    """Draws over the whole picture of ``size`` pixels a side."""

    def __init__(self, size: int) -> None:
        self._fine = size * OVERSAMPLING
        self._image = Image.new(BANDS, (self._fine, self._fine), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self._fine, y * self._fine) for x, y in points], fill=(*colour, 255))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.poly([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        f = self._fine
        self._draw.ellipse(((x - rx) * f, (y - ry) * f, (x + rx) * f, (y + ry) * f), fill=(*colour, 255))

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        placed = [(x * self._fine, y * self._fine) for x, y in points]
        self._draw.line(placed, fill=(*colour, 255), width=max(1, round(width * self._fine)), joint="curve")

    def land(self, line: Sequence[Point], colour: Colour) -> None:
        """Everything below a smooth line from left to right."""
        self.poly([*smooth(line, closed=False), (1.01, 1.01), (-0.01, 1.01)], colour)

    def lift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Colour ``(h,w,3)``, multiplied by the cover, and cover ``(h,w)``."""
        return averaged(self._image)


Rng = np.random.Generator


def _shifted(colour: Colour, by: float) -> Colour:
    r, g, b = (int(min(255, max(0, channel + by))) for channel in colour)
    return r, g, b


def _hills(rng: Rng, base: float, height: float, number: int = 5) -> list[Point]:
    return [(i / (number - 1) * 1.1 - 0.05, base - height * float(rng.random())) for i in range(number)]


def sea(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    deep: Colour = (24, 104, 172)
    bands = 7
    for i in range(bands):
        top = horizon + (1 - horizon) * (i / bands) ** 1.5
        stage.box(-0.01, top, 1.01, 1.01, _shifted(deep, 16 - 6 * i))
    for _ in range(26):
        near = float(rng.random()) ** 0.7
        y, x = horizon + 0.02 + (0.96 - horizon) * near, float(rng.random())
        w = 0.03 + 0.06 * near
        wave = [(x - w, y), (x - w / 2, y - 0.16 * w), (x, y), (x + w / 2, y - 0.16 * w), (x + w, y)]
        stage.line(smooth(wave, closed=False), 0.005 + 0.004 * near, (150, 208, 236))


def meadow(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    stage.land(_hills(rng, horizon + 0.02, 0.1), (112, 176, 92))
    stage.land(_hills(rng, horizon + 0.06, 0.04), (98, 178, 70))
    stage.box(-0.01, horizon + 0.2, 1.01, 1.01, (90, 170, 62))
    for _ in range(60):
        near = float(rng.random())
        y, x = horizon + 0.08 + (0.94 - horizon) * near, float(rng.random())
        tall = 0.012 + 0.026 * near
        colour: Colour = (66, 140, 46) if rng.random() < 0.6 else (130, 200, 84)
        stage.line([(x - tall * 0.4, y - tall), (x, y), (x + tall * 0.4, y - tall)], 0.006, colour)
    flowers: tuple[Colour, ...] = ((250, 240, 110), (250, 250, 246), (240, 120, 150))
    for _ in range(12):
        y, x = horizon + 0.12 + (0.9 - horizon) * float(rng.random()), float(rng.random())
        stage.oval(x, y, 0.011, 0.011, flowers[int(rng.integers(3))])


def desert(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    stage.land(_hills(rng, horizon + 0.02, 0.13, 4), (222, 172, 98))
    stage.land(_hills(rng, horizon + 0.1, 0.09, 4), (232, 190, 116))
    stage.land(_hills(rng, horizon + 0.24, 0.06, 4), (240, 204, 134))
    for _ in range(10):
        y, x = horizon + 0.16 + (0.84 - horizon) * float(rng.random()), float(rng.random())
        w = 0.05 + 0.09 * float(rng.random())
        stage.line(smooth([(x - w, y), (x, y - 0.012), (x + w, y)], closed=False), 0.006, (216, 172, 100))
    for _ in range(int(rng.integers(1, 3))):
        x, y = float(rng.choice([0.06, 0.12, 0.88, 0.95])), horizon + 0.08 + 0.1 * float(rng.random())
        green: Colour = (74, 134, 72)
        stage.line([(x, y), (x, y - 0.17)], 0.035, green)
        stage.line([(x, y - 0.07), (x + 0.045, y - 0.08), (x + 0.045, y - 0.14)], 0.024, green)
        stage.line([(x, y - 0.05), (x - 0.042, y - 0.06), (x - 0.042, y - 0.11)], 0.024, green)


def snow(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    peak = [(-0.05, horizon + 0.05)]
    for i in range(4):
        x = i / 3
        peak += [
            (x - 0.02 + 0.05 * float(rng.random()), horizon - 0.1 - 0.12 * float(rng.random())),
            (x + 0.17, horizon - 0.02),
        ]
    stage.poly([*peak, (1.05, horizon + 0.2), (-0.05, horizon + 0.2)], (160, 184, 210))
    stage.land(_hills(rng, horizon + 0.03, 0.05), (224, 234, 244))
    stage.land(_hills(rng, horizon + 0.16, 0.05), (238, 244, 250))
    for _ in range(9):
        y, x = horizon + 0.2 + (0.8 - horizon) * float(rng.random()), float(rng.random())
        w = 0.04 + 0.08 * float(rng.random())
        stage.line(smooth([(x - w, y), (x, y - 0.014), (x + w, y)], closed=False), 0.007, (200, 216, 234))
    for _ in range(22):
        glow.oval(float(rng.random()), float(rng.random()), 0.006, 0.006, (250, 252, 255))


def street(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    fronts: tuple[Colour, ...] = ((214, 132, 100), (232, 200, 140), (150, 176, 186), (204, 150, 150), (180, 196, 150))
    x = -0.06 * float(rng.random())
    bottom = horizon + 0.08
    while x < 1:
        w, top = 0.2 + 0.1 * float(rng.random()), horizon - 0.2 - 0.14 * float(rng.random())
        front = fronts[int(rng.integers(len(fronts)))]
        stage.box(x, top, x + w, bottom, front)
        stage.poly([(x - 0.01, top), (x + w / 2, top - 0.08), (x + w + 0.01, top)], _shifted(front, -66))
        for row in range(2):
            for column in range(2):
                left, high = x + w * (0.18 + 0.4 * column), top + 0.04 + 0.1 * row
                stage.box(left, high, left + w * 0.22, high + 0.05, (96, 110, 128))
                if rng.random() < 0.6:
                    glow.box(left, high, left + w * 0.22, high + 0.05, (255, 226, 140))
        x += w
    stage.box(-0.01, bottom, 1.01, bottom + 0.05, (196, 190, 182))
    stage.box(-0.01, bottom + 0.05, 1.01, 1.01, (104, 106, 114))
    stage.line([(-0.01, bottom + 0.055), (1.01, bottom + 0.055)], 0.008, (150, 148, 144))
    y = bottom + 0.4 * (1 - bottom) + 0.04
    start = -0.1 * float(rng.random())
    for i in range(6):
        left = start + i * 0.22
        stage.poly([(left, y), (left + 0.11, y), (left + 0.105, y + 0.03), (left - 0.005, y + 0.03)], (240, 236, 222))


def city(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    for shade, low, high, wide in (((122, 132, 158), 0.2, 0.42, 0.11), ((82, 90, 116), 0.1, 0.3, 0.14)):
        x = -0.08 * float(rng.random())
        while x < 1:
            w, top = wide * (0.8 + 0.6 * float(rng.random())), horizon - low - (high - low) * float(rng.random())
            stage.box(x, top, x + w - 0.008, horizon + 0.06, shade)  # type: ignore[arg-type]
            for row in range(int((horizon - top) / 0.05)):
                for column in range(3):
                    if rng.random() < 0.55:
                        left, upper = x + w * (0.14 + 0.26 * column), top + 0.02 + 0.05 * row
                        stage.box(left, upper, left + w * 0.14, upper + 0.022, (208, 214, 220))
                        glow.box(left, upper, left + w * 0.14, upper + 0.022, (255, 214, 110))
            x += w
    stage.box(-0.01, horizon + 0.05, 1.01, 1.01, (150, 148, 156))
    for i in range(9):
        x = (i - 4) * 0.28
        stage.line([(0.5 + x * 0.5, horizon + 0.05), (0.5 + x * 1.6, 1.01)], 0.005, (128, 126, 136))
    for i in range(4):
        y = horizon + 0.05 + (0.95 - horizon) * ((i + 1) / 5) ** 1.6
        stage.line([(-0.01, y), (1.01, y)], 0.005, (128, 126, 136))


def forest(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    stage.land(_hills(rng, horizon - 0.02, 0.05), (62, 104, 70))
    for far in (True, False):
        for _ in range(9 if far else 6):
            x = float(rng.random()) if far else float(rng.choice([rng.random() * 0.26, 0.74 + rng.random() * 0.26]))
            y, tall = horizon + (0.03 if far else 0.11), (0.26 if far else 0.42) * (0.8 + 0.4 * float(rng.random()))
            w = tall * 0.3
            green: Colour = (54, 112, 66) if far else (34, 88, 50)
            stage.box(x - w * 0.12, y - tall * 0.2, x + w * 0.12, y, (98, 66, 42))
            for level in range(3):
                top, base, half = (
                    y - tall + level * tall * 0.22,
                    y - tall * 0.52 + level * tall * 0.2,
                    w * (0.6 + 0.2 * level),
                )
                stage.poly([(x, top), (x + half, base), (x - half, base)], _shifted(green, 8 * (2 - level)))
    stage.box(-0.01, horizon + 0.1, 1.01, 1.01, (92, 116, 60))
    stage.land(_hills(rng, horizon + 0.13, 0.06), (92, 116, 60))
    for _ in range(40):
        y, x = horizon + 0.16 + (0.84 - horizon) * float(rng.random()), float(rng.random())
        leaf: Colour = (68, 92, 44) if rng.random() < 0.5 else (146, 118, 62)
        stage.oval(x, y, 0.016, 0.006, leaf)


def beach(stage: Stage, glow: Stage, horizon: float, rng: Rng) -> None:
    stage.box(-0.01, horizon, 1.01, 1.01, (44, 146, 190))
    shore = [(i / 4 * 1.1 - 0.05, horizon + 0.14 + 0.03 * float(rng.random())) for i in range(5)]
    stage.land([(x, y - 0.022) for x, y in shore], (232, 246, 248))
    stage.land(shore, (246, 224, 168))
    for _ in range(34):
        y, x = horizon + 0.22 + (0.78 - horizon) * float(rng.random()), float(rng.random())
        stage.oval(x, y, 0.006, 0.004, (220, 190, 130))
    x, lean = (0.07, 0.05) if rng.random() < 0.5 else (0.93, -0.05)
    y = horizon + 0.22
    trunk = smooth([(x, y), (x + lean * 0.3, y - 0.2), (x + lean, y - 0.42)], closed=False)
    stage.line(trunk, 0.028, (150, 108, 66))
    cx, cy = trunk[-1]
    for angle in (-160, -120, -60, -20, 20, 165):
        a = math.radians(angle)
        tip = (cx + 0.17 * math.cos(a), cy + 0.1 * math.sin(a) + 0.05)
        mid = (cx + 0.1 * math.cos(a), cy + 0.11 * math.sin(a) - 0.01)
        stage.poly([(cx, cy - 0.012), *smooth([(cx, cy), mid, tip], closed=False), (cx, cy + 0.02)], (60, 146, 72))
    for _ in range(4):
        x = float(rng.random())
        yy = horizon + 0.03 + 0.08 * float(rng.random())
        stage.line([(x - 0.04, yy), (x + 0.04, yy)], 0.006, (170, 220, 234))


Draw = Callable[[Stage, Stage, float, Rng], None]


@dataclass(frozen=True)
class Ground:
    """A ground of the world.

    Attributes:
        draw: ``(stage, glow, horizon, rng)``: what is on ``glow`` shines: light does not tint it.
        horizons: between which fractions of the height the horizon is.
        feet: what covers them: "water", "grass", "snow", "sand", or nothing ("").
        cover: its colour.
        glows_by_day: whether what shines is there by day.
    """

    draw: Draw
    horizons: tuple[float, float]
    feet: str
    cover: Colour
    glows_by_day: bool = False


GROUNDS: dict[str, Ground] = {
    "sea": Ground(sea, (0.36, 0.46), "water", (26, 104, 170)),
    "meadow": Ground(meadow, (0.42, 0.54), "grass", (74, 150, 52)),
    "desert": Ground(desert, (0.42, 0.54), "sand", (236, 198, 126)),
    "snow": Ground(snow, (0.4, 0.52), "snow", (238, 244, 250), glows_by_day=True),
    "street": Ground(street, (0.44, 0.52), "", (104, 106, 114)),
    "city": Ground(city, (0.46, 0.54), "", (150, 148, 156)),
    "forest": Ground(forest, (0.46, 0.56), "grass", (78, 104, 50)),
    "beach": Ground(beach, (0.36, 0.46), "sand", (240, 214, 154)),
}
