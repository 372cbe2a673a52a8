"""The small world the embedded model knows: coloured shapes, their picture and the sentence that describes it.

A scene is one to four shapes without overlap on a plain ground. Everything follows from a
:class:`numpy.random.Generator`, so a seed is a scene: the training needs no data set on disk.

Why this world: text-to-image models bind colours to the wrong object, drop or add objects and swap places. All of
that can happen here, and all of it can be counted exactly, because each scene carries the mask of each object.

Coordinates: x to the right, y downwards, in pixels of a ``size`` x ``size`` picture, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 70),
    "blue": (45, 85, 220),
    "yellow": (245, 220, 50),
    "purple": (140, 55, 180),
    "orange": (245, 135, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
COUNTS: dict[str, int] = {"two": 2, "three": 3}
RELATIONS: tuple[str, ...] = ("to the left of", "to the right of", "above", "below")
SIZE = 128

_COLOUR_JITTER = 10  # 8-bit steps: no two reds are the same, and none is mistaken for another colour
_GAP = 3.0  # pixels of ground between two bounding circles, at SIZE
KINDS = ("one", "two", "relation", "counted", "counted and one", "three")
_KIND_ODDS = (0.15, 0.32, 0.27, 0.10, 0.08, 0.08)
_NAMED_GROUND_ODDS = 0.35


@dataclass(frozen=True)
class Group:
    """``count`` equal objects: "a red circle" or "two green stars"."""

    colour: str
    shape: str
    count: int = 1

    def __str__(self) -> str:
        """The group in words, with its article or number word."""
        if self.count == 1:
            return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"
        word = next(word for word, number in COUNTS.items() if number == self.count)
        return f"{word} {self.colour} {self.shape}s"


@dataclass(frozen=True)
class SceneText:
    """What a prompt says: groups, the relation of the first to the second if any, the ground's colour if named."""

    groups: tuple[Group, ...]
    relation: str | None = None
    ground: str | None = None

    def __str__(self) -> str:
        """The prompt."""
        text = f" {self.relation or 'and'} ".join(map(str, self.groups))
        if self.ground is None:
            return text
        return f"{text} on {'an' if self.ground[0] in 'aeiou' else 'a'} {self.ground} background"

    def objects(self) -> list[Group]:
        """One single group per object, in the order of the words."""
        return [Group(group.colour, group.shape) for group in self.groups for _ in range(group.count)]


@dataclass(frozen=True)
class Placed:
    """One object in the picture: everything of it lies within ``radius`` of ``(x, y)`` (pixels)."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A picture, its prompt, and where each object is.

    ``image``: uint8 (H, W, 3). ``masks``: bool (objects, H, W), true where an object covers at least half a pixel.
    """

    prompt: str
    text: SceneText
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    objects: tuple[Placed, ...]


def random_text(rng: np.random.Generator) -> SceneText:
    """Draw what a scene says: mostly two objects, different groups, a ground no object has the colour of."""
    return text_of_kind(KINDS[rng.choice(len(KINDS), p=_KIND_ODDS)], rng)


def text_of_kind(kind: str, rng: np.random.Generator) -> SceneText:
    """Draw a text of one of :data:`KINDS`."""
    number_of_groups = {"one": 1, "counted": 1, "three": 3}.get(kind, 2)
    pairs = rng.choice(len(COLOURS) * len(SHAPES), size=number_of_groups, replace=False)
    colours = list(COLOURS)
    groups = [Group(colours[pair // len(SHAPES)], SHAPES[pair % len(SHAPES)]) for pair in pairs]
    if kind.startswith("counted"):
        which = int(rng.integers(number_of_groups))
        groups[which] = Group(groups[which].colour, groups[which].shape, int(rng.choice(list(COUNTS.values()))))
    relation = str(rng.choice(RELATIONS)) if kind == "relation" else None
    ground = None
    if rng.random() < _NAMED_GROUND_ODDS:
        ground = str(rng.choice([colour for colour in colours if colour not in {group.colour for group in groups}]))
    return SceneText(tuple(groups), relation, ground)


def place(text: SceneText, rng: np.random.Generator, size: int = SIZE) -> tuple[Placed, ...]:
    """Find a place and a size for each object: apart from each other, inside the picture, true to the relation."""
    wanted = text.objects()
    low, high = {1: (0.15, 0.30), 2: (0.13, 0.22), 3: (0.12, 0.18)}.get(len(wanted), (0.11, 0.15))
    shrink = 1.0
    while True:
        for _ in range(60):
            radii = rng.uniform(low, high, len(wanted)) * size * shrink
            centres = rng.uniform(radii[:, None] + 1, size - 1 - radii[:, None], (len(wanted), 2))
            if _apart(centres, radii, _GAP * size / SIZE) and _holds(text.relation, centres, radii, size):
                return tuple(
                    Placed(one.colour, one.shape, float(x), float(y), float(radius))
                    for one, (x, y), radius in zip(wanted, centres, radii, strict=True)
                )
        shrink *= 0.9


def _apart(centres: NDArray[np.float64], radii: NDArray[np.float64], gap: float) -> bool:
    """Whether all bounding circles are at least ``gap`` from each other."""
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    needed = radii[:, None] + radii[None] + gap
    return bool((distance >= needed)[np.triu_indices(len(radii), 1)].all())


def _holds(relation: str | None, centres: NDArray[np.float64], radii: NDArray[np.float64], size: int) -> bool:
    """Whether the first object stands to the second as the relation says, clearly and not far off its axis."""
    if relation is None:
        return True
    across = abs(centres[1] - centres[0])[1 if relation in RELATIONS[:2] else 0]
    return relation_holds(relation, centres[0], centres[1], float(radii.sum())) and bool(across <= 0.3 * size)


def relation_holds(relation: str, first: Sequence[float], second: Sequence[float], by: float = 0.0) -> bool:
    """Whether the centre ``first`` (x, y) stands to ``second`` as the relation says, by at least so many pixels."""
    axis = 0 if relation in RELATIONS[:2] else 1
    sign = 1 if relation in ("to the left of", "above") else -1
    return bool(sign * (second[axis] - first[axis]) >= by)


def coverage(placed: Placed, size: int = SIZE) -> NDArray[np.float32]:
    """How much of each pixel the object covers, (size, size) in [0, 1]: half a pixel either side of its edge."""
    return covers(placed, (size, size))


def covers(placed: Placed, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """:func:`coverage` in an array (height, width)."""
    x = np.arange(shape[1], dtype=np.float32)[None, :] + np.float32(0.5) - placed.x
    y = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(0.5) - placed.y
    return np.clip(0.5 - _distance(placed.shape, x, y, placed.radius), 0, 1).astype(np.float32)


def _distance(shape: str, x: NDArray[np.float32], y: NDArray[np.float32], radius: float) -> NDArray[np.floating]:
    """Signed distance to the shape's edge, negative inside, up to rounding at the corners.

    All shapes fit in a circle of the given radius; the disc is drawn smaller so that it does not look larger.
    """
    if shape == "circle":
        return np.hypot(x, y) - 0.85 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius / np.sqrt(2)
    if shape == "triangle":
        return np.maximum(y - radius / 2, np.sqrt(3) / 2 * np.abs(x) - y / 2 - radius / 2)
    if shape == "star":
        # One of ten mirrored sectors is enough: the edge from a tip (angle 0) to the next dent (angle 36 degrees).
        sector = 2 * np.pi / 5
        angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
        along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
        dent = 0.48 * radius * np.array([np.cos(sector / 2), np.sin(sector / 2)])
        normal = np.array([dent[1], radius - dent[0]]) / np.hypot(dent[1], radius - dent[0])
        return (along - radius) * normal[0] + across * normal[1]
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


def render(text: SceneText, objects: Sequence[Placed], rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Draw the objects on the ground the text names, or on a muted one of no name."""
    if text.ground is None:
        ground = rng.uniform(85, 170) + rng.uniform(-22, 22, 3)
    else:
        ground = _shade(text.ground, rng)
    image = np.broadcast_to(ground, (size, size, 3)).astype(np.float32)
    masks = np.zeros((len(objects), size, size), dtype=bool)
    for mask, placed in zip(masks, objects, strict=True):
        cover = coverage(placed, size)
        image += cover[..., None] * (_shade(placed.colour, rng).astype(np.float32) - image)
        mask[:] = cover >= 0.5
    return Scene(str(text), text, np.round(image).astype(np.uint8), masks, tuple(objects))


def _shade(colour: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """The named colour, a little off, (3,) in [0, 255]."""
    return np.clip(np.array(COLOURS[colour]) + rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, 3), 0, 255)


def random_scene(rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Draw a whole scene."""
    text = random_text(rng)
    return render(text, place(text, rng, size), rng, size)


def scene_from_seed(*seed: int, size: int = SIZE) -> Scene:
    """The scene of a seed (one number or several, e.g. the data set's seed and the scene's number in it)."""
    return random_scene(np.random.default_rng(seed), size)


def scene_from_text(text: SceneText, *seed: int, size: int = SIZE) -> Scene:
    """A true picture of what ``text`` says."""
    rng = np.random.default_rng(seed)
    return render(text, place(text, rng, size), rng, size)
