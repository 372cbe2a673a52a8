"""A pen that draws flat, smooth shapes: sprites are short lists of them.

Coordinates of a sprite are *units*: x to the right, y upwards, the ground at y = 0, one unit about the height of an
animal. Everything is drawn on :data:`OVERSAMPLING` times as many pixels and averaged, which is the antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

OVERSAMPLING = 4
BANDS = "RGBX"
"""Pillow's mode: colours and cover. Where nothing is drawn all four are 0, so the colours are multiplied by the cover
already; as "RGBA" they would be multiplied once more, which takes most of the time."""
LEFT, RIGHT, BOTTOM, TOP = -1.2, 1.2, -0.3, 2.1
"""The box of a sprite, in units."""
_CURVE = 6  # straight pieces between two points of a smooth outline


@dataclass(frozen=True)
class Stamp:
    """A sprite, ready to be put into a picture.

    Attributes:
        colour: ``(h,w,3)`` float32 in [0, 255], already multiplied by the cover.
        cover: ``(h,w)`` float32 in [0, 1].
        origin: where the sprite's (0, 0) is, pixels from the left and from the top.
    """

    colour: NDArray[np.float32]
    cover: NDArray[np.float32]
    origin: Point


class Pen:
    """Draws a sprite at ``scale`` pixels a unit; ``flip`` makes it face left, ``tilt`` raises its front (degrees)."""

    def __init__(self, scale: float, flip: bool = False, tilt: float = 0.0) -> None:
        self._scale, self._flip = scale, flip
        self._cos, self._sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        self._fine = scale * OVERSAMPLING
        size = (math.ceil((RIGHT - LEFT) * scale), math.ceil((TOP - BOTTOM) * scale))
        self._image = Image.new(BANDS, (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, point: Point) -> Point:
        x, y = point
        x, y = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        return ((-x if self._flip else x) - LEFT) * self._fine, (TOP - y) * self._fine

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """A polygon."""
        self._draw.polygon([self._place(point) for point in points], fill=(*colour, 255))

    def blob(self, points: Sequence[Point], colour: Colour) -> None:
        """A smooth outline through the points (a closed Catmull-Rom curve)."""
        self.poly(smooth(points), colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        """An ellipse around (x, y), turned by ``angle`` degrees."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turns = [2 * math.pi * i / 28 for i in range(28)]
        round_ = [(rx * math.cos(t), ry * math.sin(t)) for t in turns]
        self.poly([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in round_], colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.oval(x, y, radius, radius, colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour, bend: bool = False) -> None:
        """A stroke with round ends; ``bend`` makes it smooth."""
        if bend and len(points) > 2:
            points = smooth(points, closed=False)
        placed = [self._place(point) for point in points]
        pixels = max(1, round(width * self._fine))
        self._draw.line(placed, fill=(*colour, 255), width=pixels, joint="curve")
        r = pixels / 2
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """A circle's outline."""
        turns = [2 * math.pi * i / 36 for i in range(37)]
        self.line([(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns], width, colour)

    def lift(self) -> Stamp:
        """The finished sprite."""
        colour, cover = averaged(self._image)
        return Stamp(colour, cover, (-LEFT * self._scale, TOP * self._scale))


def averaged(image: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is drawn on :data:`OVERSAMPLING` times as many pixels: colour ``(h,w,3)``, multiplied by the cover, and the
    cover ``(h,w)``."""
    pixels = np.asarray(image.reduce(OVERSAMPLING), dtype=np.float32)
    return pixels[..., :3], pixels[..., 3] / 255


def smooth(points: Sequence[Point], closed: bool = True) -> list[Point]:
    """Points of a Catmull-Rom curve through ``points``."""
    given = np.asarray(points, dtype=np.float64)
    if closed:
        before, after, last = np.roll(given, 1, 0), np.roll(given, -1, 0), np.roll(given, -2, 0)
    else:
        padded = np.concatenate([given[:1], given, given[-1:], given[-1:]])
        before, after, last = padded[:-3], padded[2:-1], padded[3:]
    t = (np.arange(_CURVE) / _CURVE)[:, None, None]
    curve = 0.5 * (
        2 * given
        + (after - before) * t
        + (2 * before - 5 * given + 4 * after - last) * t**2
        + (3 * given - before - 3 * after + last) * t**3
    )
    found = curve.transpose(1, 0, 2).reshape(-1, 2)
    if not closed:
        found = np.concatenate([found[: (len(given) - 1) * _CURVE], given[-1:]])
    return [(float(x), float(y)) for x, y in found]
