"""The things: each a function for what is behind the animal that uses it, and one for what is in front of it.

To add one: its functions here and a row in :data:`THINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asyndm_ext.world.pen import Colour, Pen

PAINTS: dict[str, Colour] = {
    "red": (214, 48, 44),
    "blue": (44, 98, 214),
    "yellow": (248, 208, 48),
    "green": (46, 150, 78),
}
"""Colours that a thing can be painted in."""

TYRE: Colour = (36, 36, 42)
METAL: Colour = (190, 196, 204)
WOOD: Colour = (150, 98, 54)
GLASS: Colour = (196, 226, 242)


def darker(colour: Colour, by: float = 0.72) -> Colour:
    r, g, b = (round(channel * by) for channel in colour)
    return r, g, b


def _nothing(pen: Pen, paint: Colour) -> None:
    pass


def bike(pen: Pen, paint: Colour) -> None:
    """Stout, as a child would draw it: thin lines are lost where a picture is made of few pixels."""
    for x in (-0.58, 0.58):
        pen.dot(x, 0.36, 0.38, TYRE)
        pen.dot(x, 0.36, 0.24, METAL)
        pen.dot(x, 0.36, 0.08, TYRE)
    pen.line([(-0.58, 0.36), (-0.2, 0.8), (0.4, 0.8), (0.0, 0.36), (-0.58, 0.36)], 0.13, paint)
    pen.line([(0.0, 0.36), (-0.24, 0.88)], 0.13, paint)
    pen.line([(0.58, 0.36), (0.38, 1.0)], 0.13, paint)
    pen.line([(0.34, 1.02), (0.62, 1.1)], 0.12, TYRE)
    pen.line([(-0.46, 0.92), (-0.04, 0.92)], 0.15, TYRE)


def boat_back(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.62, 0.3), (-0.62, 1.96)], 0.07, WOOD)
    pen.blob([(-0.56, 1.92), (-0.3, 1.5), (-0.24, 0.98), (-0.56, 0.92)], (250, 246, 234))
    pen.poly([(-0.66, 1.96), (-0.66, 1.8), (-0.98, 1.88)], paint)


def boat(pen: Pen, paint: Colour) -> None:
    pen.blob(
        [
            (-1.1, 0.56),
            (-0.6, 0.5),
            (0.5, 0.5),
            (1.12, 0.68),
            (0.92, 0.2),
            (0.7, 0.0),
            (0.0, -0.04),
            (-0.7, 0.0),
            (-0.94, 0.22),
        ],
        paint,
    )
    pen.line([(-1.06, 0.54), (-0.5, 0.49), (0.5, 0.49), (1.06, 0.64)], 0.09, (246, 240, 226), bend=True)
    pen.line([(-0.86, 0.22), (0.0, 0.16), (0.9, 0.26)], 0.05, darker(paint), bend=True)


def sled_back(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.66, 0.28), (0.66, 0.28)], 0.1, darker(WOOD))


def sled(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.78, 0.06), (0.7, 0.06), (0.98, 0.2), (1.0, 0.46), (0.82, 0.5)], 0.08, paint, bend=True)
    for x in (-0.5, 0.0, 0.5):
        pen.line([(x, 0.08), (x, 0.26)], 0.07, darker(WOOD))
    pen.line([(-0.8, 0.3), (0.74, 0.3)], 0.11, WOOD)
    pen.line([(-0.8, 0.36), (0.7, 0.36)], 0.04, (186, 132, 80))


def car_back(pen: Pen, paint: Colour) -> None:
    pen.blob([(-0.62, 0.5), (-0.5, 0.84), (-0.3, 0.9), (-0.2, 0.5)], darker(paint))


def car(pen: Pen, paint: Colour) -> None:
    pen.poly([(0.42, 0.58), (0.26, 1.0), (0.34, 1.0), (0.56, 0.58)], GLASS)
    pen.line([(0.29, 1.0), (0.48, 0.58)], 0.035, TYRE)
    pen.blob(
        [
            (-1.02, 0.28),
            (-1.0, 0.56),
            (-0.6, 0.66),
            (0.4, 0.62),
            (0.86, 0.54),
            (1.06, 0.4),
            (1.04, 0.2),
            (0.0, 0.16),
            (-0.98, 0.18),
        ],
        paint,
    )
    pen.line([(-0.98, 0.3), (1.0, 0.28)], 0.05, darker(paint))
    pen.line([(-0.14, 0.6), (-0.14, 0.26)], 0.025, darker(paint))
    pen.line([(0.0, 0.48), (0.12, 0.48)], 0.035, METAL)
    pen.dot(0.96, 0.42, 0.07, (255, 240, 160))
    pen.dot(-0.98, 0.44, 0.05, (200, 40, 40))
    for x in (-0.6, 0.6):
        pen.dot(x, 0.2, 0.22, TYRE)
        pen.dot(x, 0.2, 0.1, METAL)


def tractor_back(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.76, 0.7), (-0.76, 1.9)], 0.06, TYRE)
    pen.line([(0.1, 0.7), (0.06, 1.9)], 0.06, TYRE)


def tractor(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.9, 1.94), (0.2, 1.94)], 0.11, paint)
    pen.line([(0.74, 0.8), (0.74, 1.24)], 0.08, TYRE)
    pen.blob([(-0.86, 0.5), (-0.8, 0.8), (0.1, 0.78), (0.9, 0.78), (1.0, 0.44), (0.6, 0.34), (-0.6, 0.34)], paint)
    pen.line([(0.5, 0.66), (0.88, 0.66)], 0.04, darker(paint))
    pen.line([(0.5, 0.56), (0.88, 0.56)], 0.04, darker(paint))
    pen.dot(-0.46, 0.42, 0.44, TYRE)
    pen.dot(-0.46, 0.42, 0.22, (250, 196, 60))
    pen.dot(0.66, 0.24, 0.26, TYRE)
    pen.dot(0.66, 0.24, 0.12, (250, 196, 60))


def balloon_back(pen: Pen, paint: Colour) -> None:
    for x in (-0.46, 0.46):
        pen.line([(x * 0.9, 0.4), (x * 1.1, 1.3)], 0.03, WOOD)
    for points, colour in (
        (
            [(0.0, 2.08), (-0.6, 1.98), (-0.86, 1.66), (-0.6, 1.3), (0.0, 1.18), (0.6, 1.3), (0.86, 1.66), (0.6, 1.98)],
            paint,
        ),
        (
            [
                (0.0, 2.08),
                (-0.28, 1.98),
                (-0.42, 1.66),
                (-0.26, 1.3),
                (0.0, 1.18),
                (0.26, 1.3),
                (0.42, 1.66),
                (0.28, 1.98),
            ],
            (252, 246, 226),
        ),
        (
            [
                (0.0, 2.08),
                (-0.1, 1.96),
                (-0.14, 1.66),
                (-0.08, 1.3),
                (0.0, 1.18),
                (0.08, 1.3),
                (0.14, 1.66),
                (0.1, 1.96),
            ],
            paint,
        ),
    ):
        pen.blob(points, colour)


def balloon(pen: Pen, paint: Colour) -> None:
    pen.poly([(-0.5, 0.42), (0.5, 0.42), (0.4, 0.0), (-0.4, 0.0)], (182, 124, 66))
    for y in (0.12, 0.24):
        pen.line([(-0.42, y), (0.42, y)], 0.025, (140, 90, 44))
    for x in (-0.25, 0.0, 0.25):
        pen.line([(x, 0.04), (x, 0.36)], 0.025, (140, 90, 44))
    pen.line([(-0.5, 0.42), (0.5, 0.42)], 0.09, (120, 76, 36))


def tent(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.06, 1.38), (0.08, 1.2)], 0.05, WOOD)
    pen.line([(0.06, 1.38), (-0.08, 1.2)], 0.05, WOOD)
    pen.poly([(-0.98, 0.0), (0.0, 1.28), (0.98, 0.0)], paint)
    pen.poly([(0.0, 1.28), (0.98, 0.0), (0.52, 0.0)], darker(paint, 0.82))
    pen.poly([(-0.38, 0.0), (0.0, 0.92), (0.34, 0.0)], (54, 42, 44))
    pen.poly([(-0.38, 0.0), (0.0, 0.92), (-0.2, 0.0)], darker(paint, 0.9))


def umbrella_back(pen: Pen, paint: Colour) -> None:
    pen.line([(-0.5, 0.0), (-0.14, 1.6)], 0.06, (232, 226, 214))


def umbrella(pen: Pen, paint: Colour) -> None:
    top = (0.0, 2.04)
    edge = [(-1.08, 1.36), (-0.66, 1.4), (-0.24, 1.36), (0.22, 1.38), (0.64, 1.36), (1.08, 1.36)]
    outline = smooth_dome()
    pen.poly(outline, paint)
    pen.poly([top, (-0.42, 1.86), edge[1], edge[2]], (252, 248, 238))
    pen.poly([top, (0.38, 1.88), edge[4], edge[3]], (252, 248, 238))
    pen.line([(0.0, 2.04), (0.02, 2.1)], 0.06, (232, 226, 214))


def smooth_dome() -> list[tuple[float, float]]:
    """The canopy's outline: a flat dome."""
    from asyndm_ext.world.pen import smooth

    dome = smooth(
        [(-1.1, 1.36), (-0.9, 1.66), (-0.45, 1.94), (0.0, 2.04), (0.45, 1.94), (0.9, 1.66), (1.1, 1.36)], closed=False
    )
    return [*dome, (1.1, 1.34), (-1.1, 1.34)]


@dataclass(frozen=True)
class Thing:
    """A thing of the world.

    Attributes:
        back, front: draw what is behind and in front of the animal that uses it.
        home: its usual ground.
        seat: where the animal's feet are, units of the thing; (0, 0) is on the ground.
        rider: the animal's size upon it, a factor.
        size: its own, a factor.
        used: how a prompt says that an animal uses it: "riding", "in", ...
        names: in prompts, the first the usual one.
        paint: its usual colour, where the prompt names none.
        floats: it carries the animal over water.
    """

    back: Callable[[Pen, Colour], None]
    front: Callable[[Pen, Colour], None]
    home: str
    seat: tuple[float, float]
    rider: float
    size: float
    used: tuple[str, ...]
    names: tuple[str, ...]
    floats: bool = False


THINGS: dict[str, Thing] = {
    "boat": Thing(boat_back, boat, "sea", (0.1, 0.28), 0.85, 1.1, ("in", "sailing"), ("boat",), floats=True),
    "tractor": Thing(tractor_back, tractor, "meadow", (-0.3, 0.62), 0.85, 1.1, ("driving", "on"), ("tractor",)),
    "balloon": Thing(
        balloon_back, balloon, "desert", (0.0, 0.16), 0.78, 1.2, ("in", "flying"), ("balloon", "hot air balloon")
    ),
    "sled": Thing(sled_back, sled, "snow", (-0.05, 0.34), 0.95, 1.05, ("on", "riding"), ("sled", "sledge")),
    "bike": Thing(bike, _nothing, "street", (-0.2, 0.8), 0.9, 1.1, ("riding", "on"), ("bike", "bicycle")),
    "car": Thing(car_back, car, "city", (-0.22, 0.42), 0.85, 1.15, ("in", "driving"), ("car",)),
    "tent": Thing(tent, _nothing, "forest", (0.0, 0.0), 1.0, 1.1, ("in front of",), ("tent",)),
    "umbrella": Thing(umbrella_back, umbrella, "beach", (0.12, 0.0), 0.95, 1.2, ("under",), ("umbrella", "parasol")),
}
