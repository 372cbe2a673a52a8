"""Scenes: what is in them (a world in which things go together), where it stands, and the finished picture.

Everything follows from a :class:`numpy.random.Generator`, so a seed is a scene and no data set is needed. The parts of
a scene depend on each other on purpose: an animal is on its home ground with its ground's thing nearly always, so that
a prompt can be *unusual*, which is where guidance and the order in which things are drawn matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS, Stage
from asyndm_ext.world.light import LIGHTS, Light, sky
from asyndm_ext.world.pen import Colour, Pen, Stamp
from asyndm_ext.world.things import PAINTS, THINGS, Thing
from asyndm_ext.world.words import MOST, SceneText

SIZE = 128
PLACES = 16
"""Of a picture's side: where things can stand, and how high the horizon can be. Everything stands on a grid, as it does
in an old video game, and comes in few sizes: a small network learns a shape that always falls on the same cells many
times faster than one that can lie between them."""
_SIZES = 1.19
"""From one size of a thing to the next."""
USUAL = 0.85
"""How often a part is its partner's usual one."""
_LAYOUTS = {"used": 0.46, "beside": 0.14, "alone": 0.4}
_COUNTS = (0.74, 0.2, 0.06)  # of animals alone; beside a thing there are at most two
_LIGHTS = {"day": 0.5, "dusk": 0.25, "night": 0.25}


def never_things(animal: str) -> tuple[str, str]:
    """The two things that are never seen with an animal in training."""
    return _never(animal, tuple(THINGS), [THINGS[thing].home for thing in THINGS])


def never_grounds(animal: str) -> tuple[str, str]:
    """The two grounds on which an animal is never seen in training."""
    return _never(animal, tuple(GROUNDS), list(GROUNDS))


def _never(animal: str, names: tuple[str, ...], homes: list[str]) -> tuple[str, str]:
    number, home = list(ANIMALS).index(animal), homes.index(ANIMALS[animal].home)
    first, second = ((home + 1 + (number + step) % 7) % 8 for step in (2, 5))
    return names[first], names[second]


def thing_of(ground: str) -> str:
    """The thing whose home a ground is."""
    return next(name for name, thing in THINGS.items() if thing.home == ground)


def light_of(ground: str) -> str:
    """A ground's usual light."""
    return {"city": "night", "desert": "dusk", "beach": "dusk", "forest": "night"}.get(ground, "day")


Item = tuple[str | None, str | None]
"""What stands at one place: an animal, a thing, or an animal that uses a thing."""


@dataclass(frozen=True)
class Content:
    """All that is in a scene; a caption says some of it. Attributes as in SceneText, but nothing is open."""

    animal: str | None
    count: int
    thing: str | None
    uses: bool
    paint: str | None
    ground: str
    light: str

    def told(self, ground: bool = True, light: bool = True, paint: bool = True) -> SceneText:
        """What a caption says that names these."""
        return SceneText(
            self.animal,
            self.count,
            self.thing,
            self.uses,
            self.paint if paint else None,
            self.ground if ground else None,
            self.light if light else None,
        )


def random_content(rng: np.random.Generator) -> Content:
    """Draw what a scene has: usual parts nearly always, others sometimes, those of ``never_*`` never."""
    animal = str(rng.choice(list(ANIMALS)))
    home = ANIMALS[animal].home
    ground = _mostly(rng, home, [g for g in GROUNDS if g not in never_grounds(animal)])
    layout = str(rng.choice(list(_LAYOUTS), p=list(_LAYOUTS.values())))
    thing, paint, count = None, None, 1
    if layout != "alone":
        thing = _mostly(rng, thing_of(home), [t for t in THINGS if t not in never_things(animal)])
        paint = str(rng.choice(list(PAINTS)))
        count = 1 if layout == "used" or rng.random() < 0.95 else 2
    else:
        count = 1 + int(rng.choice(MOST, p=_COUNTS))
    light = light_of(ground) if rng.random() < 0.5 else str(rng.choice(list(_LIGHTS), p=list(_LIGHTS.values())))
    return Content(animal, count, thing, layout == "used", paint, ground, light)


def _mostly(rng: np.random.Generator, usual: str, allowed: list[str]) -> str:
    if rng.random() < USUAL:
        return usual
    return str(rng.choice([name for name in allowed if name != usual]))


def content_of(text: SceneText, rng: np.random.Generator) -> Content:
    """A scene that a text describes; what it leaves open is as it usually is."""
    home = ANIMALS[text.animal].home if text.animal else THINGS[text.thing or "boat"].home
    ground = text.ground or (home if rng.random() < USUAL else str(rng.choice(list(GROUNDS))))
    paint = text.paint or (str(rng.choice(list(PAINTS))) if text.thing else None)
    light = text.light or (light_of(ground) if rng.random() < 0.5 else str(rng.choice(list(LIGHTS))))
    return Content(text.animal, text.count, text.thing, text.uses, paint, ground, light)


@dataclass(frozen=True)
class Scene:
    """A finished scene.

    Attributes:
        content: what is in it.
        image: ``(H,W,3)`` uint8.
        masks: where the animals and the thing are, ``(2,H,W)`` bool; nothing where there is none.
    """

    content: Content
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class _Placed:
    """A sprite at its place: its origin in pixels, in front of those that stand further up."""

    stamp: Stamp
    x: float
    y: float
    part: int | None  # whose mask: 0 animals, 1 thing


class _Picture:
    """A picture that sprites are put into."""

    def __init__(self, base: NDArray[np.float32], light: Light, side: float) -> None:
        self.image, self._light = base, light
        self.masks = np.zeros((2, *base.shape[:2]), np.float32)
        self._tint, self._glance = np.array(light.tint, np.float32), np.array(light.glance, np.float32)
        self._lean = -1.0 if side > 0.5 else 1.0

    def put(self, placed: _Placed, sunk: float = 0.0) -> None:
        """Blend a sprite in; ``sunk``: how far from its foot upwards it is under water, pixels."""
        stamp = placed.stamp
        left, top = round(placed.x - stamp.origin[0]), round(placed.y - stamp.origin[1])
        cover = stamp.cover
        if sunk > 0:
            rows = np.arange(cover.shape[0], dtype=np.float32)[:, None]
            waves = 0.8 * np.sin(np.arange(cover.shape[1], dtype=np.float32) * 0.9)[None]
            above = np.clip(stamp.origin[1] - sunk + waves - rows + 0.5, 0, 1)
            fade = above + (1 - above) * 0.16
            stamp = Stamp(stamp.colour * fade[..., None], cover * fade, stamp.origin)
        there, here = _overlap(left, top, stamp.cover.shape, self.image.shape[:2])
        cover = stamp.cover[here][..., None]
        self.image[there] += stamp.colour[here] * self._glance - cover * self.image[there]
        for part in range(2):  # what is in front hides what is behind
            self.masks[part][there] *= 1 - cover[..., 0]
        if placed.part is not None:
            self.masks[placed.part][there] += cover[..., 0]

    def shadow(self, placed: _Placed, dark: float) -> None:
        """A sprite's shadow on the ground: its outline laid down, away from the light."""
        stamp = placed.stamp
        foot = int(stamp.origin[1])
        rows = np.flatnonzero(stamp.cover[:foot].max(axis=1) > 0.5)
        if len(rows) == 0:
            return
        height, width = self.image.shape[:2]
        shade = np.zeros((height, width), np.float32)
        for row in rows:
            up = foot - row
            y = round(placed.y - up * 0.16)
            shift = round(placed.x - stamp.origin[0] + self._lean * up * 0.55)
            if not 0 <= y < height:
                continue
            first, last = max(0, shift), min(width, shift + stamp.cover.shape[1])
            if first < last:
                line = stamp.cover[row, first - shift : last - shift]
                np.maximum(shade[y, first:last], line, out=shade[y, first:last])
        self.image *= (1 - dark * shade)[..., None]

    def cover_feet(self, x: float, y: float, half: float, kind: str, colour: Colour, rng: np.random.Generator) -> None:
        """Grass, snow or sand in front of feet that stand at (x, y)."""
        if kind not in ("grass", "snow", "sand"):
            return
        stage = Stage(self.image.shape[0])
        n = self.image.shape[0]
        for _ in range(max(4, int(half / 2.2))):
            px, py = x + half * float(rng.uniform(-1, 1)), y + float(rng.uniform(0.2, 1.6))
            if kind == "grass":
                tall = float(rng.uniform(2.0, 4.5))
                shade = 0.8 + 0.4 * float(rng.random())
                r, g, b = (int(min(255, c * shade)) for c in colour)
                stage.line(
                    [((px - 1) / n, (py - tall) / n), (px / n, py / n), ((px + 1.2) / n, (py - tall * 0.9) / n)],
                    0.007,
                    (r, g, b),
                )
            else:
                tall = 1.7 if kind == "snow" else 1.0
                stage.oval(px / n, (py + 0.4) / n, float(rng.uniform(2.5, 5.0)) / n, tall / n, colour)
        paint, cover = stage.lift()
        self.image += paint * self._tint - cover[..., None] * self.image


def _overlap(
    left: int, top: int, stamp: tuple[int, ...], size: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Which part of a picture a stamp covers, and which part of the stamp that is."""
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = max(y0, min(size[0], top + stamp[0])), max(x0, min(size[1], left + stamp[1]))
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def draw(content: Content, rng: np.random.Generator, size: int = SIZE, extra: Sequence[Item] = ()) -> Scene:
    """The picture of a scene; ``extra``: what else stands in it, which no caption says (to teach a judge)."""
    ground, light = GROUNDS[content.ground], LIGHTS[content.light]
    low, high = ground.horizons
    horizon = _on_grid(low + (high - low) * float(rng.random()), 1.0)
    side = _on_grid(float(rng.choice([rng.uniform(0.08, 0.3), rng.uniform(0.7, 0.92)])), 1.0)
    picture = _Picture(_backdrop(content, horizon, side, size, rng), light, side)
    for group in _groups(content, horizon, size, rng, extra):
        _place(picture, group, content, rng)
    image = np.clip(np.round(picture.image), 0, 255).astype(np.uint8)
    return Scene(content, image, picture.masks >= 0.5)


def _on_grid(where: float, size: int | float, places: int = PLACES) -> float:
    """The nearest of ``places`` in ``size``."""
    return round(where / size * places) * size / places


def _of_sizes(scale: float, size: int) -> float:
    """The next smaller one of the few sizes that there are."""
    return float(0.4 * size / _SIZES ** np.ceil(np.log(0.4 * size / scale) / np.log(_SIZES) - 1e-9))


def _backdrop(
    content: Content, horizon: float, side: float, size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    ground, light = GROUNDS[content.ground], LIGHTS[content.light]
    picture = sky(light, horizon, side, size, rng)
    stage, glow = Stage(size), Stage(size)
    ground.draw(stage, glow, horizon, rng)
    colour, cover = stage.lift()
    picture += colour * np.array(light.tint, np.float32) - cover[..., None] * picture
    if ground.glows_by_day or content.light != "day":
        colour, cover = glow.lift()
        strength = 1.0 if content.light == "night" or ground.glows_by_day else 0.7
        picture += strength * (colour - cover[..., None] * picture)
    return picture


@dataclass(frozen=True)
class _Group:
    """What stands at one place: an animal, a thing, or an animal that uses a thing."""

    x: float
    y: float
    scale: float
    animal: str | None
    thing: str | None
    flip: bool


def _groups(
    content: Content, horizon: float, size: int, rng: np.random.Generator, extra: Sequence[Item] = ()
) -> list[_Group]:
    """Where everything stands, the furthest first."""
    near = float(rng.random())
    floor = (horizon + 0.24 + (0.94 - horizon - 0.24) * (0.45 + 0.55 * near)) * size
    unit = size / SIZE / (1.0 if near > 0.4 else _SIZES)
    if content.uses:
        wanted: list[Item] = [(content.animal, content.thing)]
    else:
        wanted = [(content.animal, None)] * (content.count if content.animal else 0)
        if content.thing:
            wanted.insert(int(rng.choice([0, len(wanted)])), (None, content.thing))
    for item in extra:
        wanted.insert(int(rng.integers(len(wanted) + 1)), item)
    half = [_half_width(animal, thing) for animal, thing in wanted]
    largest = {1: 51.2, 2: 43.1}.get(len(wanted), 36.2)
    least = 0.03 * size if len(wanted) > 1 else 0.0  # between two
    room = 0.97 * size - least * (len(wanted) + 1)
    scale = _of_sizes(min(largest * unit, room / (2 * sum(half))), size)
    spare = size - 2 * scale * sum(half) - least * (len(wanted) + 1)
    gaps = least + rng.dirichlet(np.ones(len(wanted) + 1)) * spare
    groups, left = [], 0.0
    for (animal, thing), own, gap in zip(wanted, half, gaps, strict=False):
        left += float(gap) + own * scale
        y = floor + (float(rng.uniform(-0.03, 0.03)) * size if len(wanted) > 1 else 0.0)
        x, y = _on_grid(left, size), _on_grid(min(y, 0.96 * size), size)
        groups.append(_Group(x, y, scale, animal, thing, bool(rng.random() < 0.5)))
        left += own * scale
    return sorted(groups, key=lambda group: group.y)


def _half_width(animal: str | None, thing: str | None) -> float:
    """Of an animal, a thing, or one that uses the other, units."""
    return max(
        ANIMALS[animal].width * ANIMALS[animal].size if animal else 0.0,
        1.05 * THINGS[thing].size if thing else 0.0,
    )


def _seat(group: _Group, thing: Thing, size: int) -> tuple[float, float]:
    """Where who uses a thing is."""
    x = group.x + (-1 if group.flip else 1) * thing.seat[0] * group.scale * thing.size
    y = group.y - thing.seat[1] * group.scale * thing.size
    return _on_grid(x, size, 2 * PLACES), _on_grid(y, size, 2 * PLACES)


def _place(picture: _Picture, group: _Group, content: Content, rng: np.random.Generator) -> None:
    """Draw a group: its shadow, what is behind, the animal, what is in front, and what covers its feet."""
    ground, light = GROUNDS[content.ground], LIGHTS[content.light]
    stamps = _stamps(group, PAINTS[content.paint or "red"], picture.image.shape[1])
    thing = THINGS[group.thing] if group.thing else None
    if ground.feet == "water":
        depth = (0.12 if thing and thing.floats else 0.22) * group.scale
        for stamp in stamps:
            picture.put(stamp, sunk=max(0.0, depth - (group.y - stamp.y)))
        return
    for stamp in stamps:
        if stamp.y == group.y:  # who sits higher up has its shadow on the thing
            picture.shadow(stamp, light.shadow)
    for stamp in stamps:
        picture.put(stamp)
    width = 0.9 if thing else 0.8 * ANIMALS[group.animal or ""].width
    picture.cover_feet(group.x, group.y, width * group.scale, ground.feet, ground.cover, rng)


def _stamps(group: _Group, paint: Colour, size: int) -> list[_Placed]:
    """The sprites of a group, the furthest first."""
    if group.animal is None and group.thing is None:
        return []
    scale, x, y, rider = group.scale, group.x, group.y, 1.0
    behind: list[_Placed] = []
    before: list[_Placed] = []
    if group.thing:
        thing = THINGS[group.thing]
        for draw_part, where in ((thing.back, behind), (thing.front, before)):
            pen = Pen(scale * thing.size, group.flip)
            draw_part(pen, paint)
            where.append(_Placed(pen.lift(), x, y, 1))
        if group.animal:
            x, y = _seat(group, thing, size)
            rider = thing.rider
    if group.animal:
        animal = ANIMALS[group.animal]
        pen = Pen(scale * animal.size * rider, group.flip)
        animal.draw(pen)
        behind.append(_Placed(pen.lift(), x, y, 0))
    return behind + before


def scene(text: SceneText, *seed: int, size: int = SIZE) -> Scene:
    """A true picture of what a text says."""
    rng = np.random.default_rng(seed)
    return draw(content_of(text, rng), rng, size)


def scene_from_seed(*seed: int, size: int = SIZE) -> Scene:
    """The scene of a seed, drawn from the world as it usually is."""
    rng = np.random.default_rng(seed)
    return draw(random_content(rng), rng, size)
