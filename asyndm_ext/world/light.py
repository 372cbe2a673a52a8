"""Light: day, dusk and night tint everything, colour the sky and put sun or moon into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyndm_ext.world.pen import Colour

_STARS = 16


@dataclass(frozen=True)
class Light:
    """A time of the day.

    Attributes:
        tint: what every colour but the sky's is multiplied by.
        glance: the same for animals and things. Milder, as in a picture book, where the moon picks them out: what can
            hardly be told from its ground nobody can learn to draw.
        top, low: the sky's colours at the top and at the horizon.
        body: the sun's or the moon's.
        radius, height: of it: fractions of the picture; how high above the horizon, as a share of the sky.
        shadow: how dark shadows are, a fraction.
        stars: whether there are any.
    """

    tint: tuple[float, float, float]
    glance: tuple[float, float, float]
    top: Colour
    low: Colour
    body: Colour
    radius: float
    height: tuple[float, float]
    shadow: float
    stars: bool = False


LIGHTS: dict[str, Light] = {
    "day": Light(
        (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (96, 172, 240), (206, 234, 250), (255, 238, 130), 0.06, (0.6, 0.85), 0.3
    ),
    "dusk": Light(
        (1.0, 0.74, 0.6), (1.0, 0.9, 0.84), (108, 72, 140), (255, 158, 84), (255, 206, 104), 0.09, (0.06, 0.2), 0.38
    ),
    "night": Light(
        (0.46, 0.52, 0.76),
        (0.82, 0.86, 1.0),
        (10, 14, 44),
        (44, 56, 104),
        (244, 242, 220),
        0.055,
        (0.55, 0.85),
        0.3,
        stars=True,
    ),
}


def sky(light: Light, horizon: float, side: float, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The sky of a picture, ``(size,size,3)``; the sun at ``side`` (fraction of the width)."""
    rows = np.clip((np.arange(size, dtype=np.float32) + 0.5) / size / max(horizon, 0.01), 0, 1)[:, None, None]
    picture = np.array(light.top, np.float32) * (1 - rows) + np.array(light.low, np.float32) * rows
    picture = np.repeat(picture, size, axis=1)
    y = np.arange(size, dtype=np.float32)[:, None] + 0.5
    x = np.arange(size, dtype=np.float32)[None, :] + 0.5
    if light.stars:
        for _ in range(_STARS):
            row, column = int(rng.random() * horizon * size), int(rng.random() * size)
            picture[row, column] = 150 + 100 * float(rng.random())
    low, high = light.height
    up = horizon * (1 - (low + (high - low) * float(rng.random())))
    distance = np.hypot(x - side * size, y - up * size)
    radius = light.radius * size
    halo = np.exp(-0.5 * (distance / (2.4 * radius)) ** 2)[..., None] * (0.25 if light.stars else 0.5)
    body = np.array(light.body, np.float32)
    picture += halo * (body - picture)
    disc = np.clip(radius - distance + 0.5, 0, 1)
    if light.stars:  # a crescent
        bite = np.hypot(x - side * size - 0.5 * radius, y - up * size + 0.2 * radius)
        disc = disc * np.clip(bite - 0.85 * radius + 0.5, 0, 1)
    return picture + disc[..., None] * (body - picture)
