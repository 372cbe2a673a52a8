"""Count what is in a picture of the small world: which objects, where, on which ground; and hold it against a prompt.

No network: ground is what the picture's border shows, objects are the connected areas that differ from it, a colour is
the nearest name, a shape is the drawn form that overlaps best, if any does. Shapes that touch are told apart by their
colours, or where they hang together at a waist; an area of two colours counts as two objects. How often this is wrong
is measured on true scenes by ``asyndm evaluate``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyndm_ext.embedded.scenes import COLOURS, SHAPES, Placed, SceneText, covers, relation_holds

_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_DIFFERENT = 40.0  # 8-bit RGB distance from the ground at which a pixel belongs to an object
_SMALLEST = 0.006  # share of the picture; the smallest true object has 0.015
_CLOSE = 60.0  # a pixel within this distance of a name shows that colour rather than a blend
_STEEP = 45.0  # by how much the colour changes over four pixels of an edge
_SHARE = 0.12  # of an area: fewer pixels of another colour are a flaw, not a second object
_FIT = 0.6  # overlap below which a form is no shape at all; true ones have 0.8 and more
_WHOLE = 0.75  # a form that overlaps less may be shapes that touch
_BETTER = 0.08  # by how much more each of its pieces has to overlap
_SEED = 30  # pixels that are left of a piece when the waist is worn away
_NAMED_GROUND = 45.0  # a ground further than this from its name's colour is another one
# Area of each shape for radius 1.
_AREA = {
    "circle": np.pi * 0.85**2,
    "square": 2.0,
    "triangle": 0.75 * np.sqrt(3),
    "star": 5 * 0.48 * np.sin(0.2 * np.pi),
}


@dataclass(frozen=True)
class Found:
    """An object seen in a picture: centre of mass (pixels), share of the picture, overlap with the best shape's form.

    ``shape`` is "" where no form overlaps enough.
    """

    colour: str
    shape: str
    x: float
    y: float
    share: float
    fit: float


@dataclass(frozen=True)
class Verdict:
    """What is right: the number of objects, their colours, colours with shapes (binding), the relation, the ground."""

    number: bool
    colours: bool
    objects: bool
    relation: bool
    ground: bool

    @property
    def exact(self) -> bool:
        """Whether the picture shows what the prompt says and nothing else."""
        return self.objects and self.relation and self.ground


def nearest_colour(colour: NDArray[np.float32]) -> tuple[str, float]:
    """The name nearest to an RGB triple, and its distance."""
    distance = np.linalg.norm(_PALETTE - colour, axis=-1)
    return _NAMES[int(distance.argmin())], float(distance.min())


def ground_colour(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Median colour (3,) of the picture's outermost pixels but one."""
    ring = np.concatenate([image[1], image[-2], image[:, 1], image[:, -2]])
    return np.median(ring.astype(np.float32), axis=0)


def connected(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected areas (by edges) of a mask (H, W), largest number of the last pixel first."""
    labels = _spread(np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0), mask)
    return [labels == label for label in np.unique(labels[mask])[::-1]]


def _spread(labels: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give every pixel of a mask (H, W) the largest label that it is connected with; sweeps along rows and columns."""
    while True:
        before = labels
        for axis in (0, 1):
            # Numbers that rise with every pixel outside keep a running maximum within its stretch of the mask.
            stretch = np.cumsum(~mask, axis=axis, dtype=np.int64) * (mask.size + 1)
            forward = np.maximum.accumulate(stretch + labels, axis=axis) - stretch
            back = stretch.max() - stretch
            backward = np.flip(np.maximum.accumulate(np.flip(back + forward, axis), axis=axis), axis) - back
            labels = np.where(mask, backward, 0)
        if np.array_equal(labels, before):
            return labels


def shape_of(mask: NDArray[np.bool_]) -> tuple[str, float]:
    """The shape that overlaps a mask (H, W) best, given its area and centre of mass, and the overlap (IoU)."""
    rows, columns = np.nonzero(mask)
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    radii = {shape: float(np.sqrt(len(rows) / _AREA[shape])) for shape in SHAPES}
    reach = max(radii.values()) + 1
    # Only where the mask or any of the forms can be.
    top, bottom = int(max(0, min(rows[0], y - reach))), int(max(rows[-1], y + reach)) + 1
    left, right = int(max(0, min(columns.min(), x - reach))), int(max(columns.max(), x + reach)) + 1
    own = mask[top:bottom, left:right]
    best = ("", 0.0)
    for shape, radius in radii.items():
        covered = covers(Placed("", shape, x - left, y - top, radius), own.shape) >= 0.5
        overlap = float((covered & own).sum() / (covered | own).sum())
        best = max(best, (shape, overlap), key=lambda candidate: candidate[1])
    return best


@dataclass(frozen=True)
class View:
    """What is seen in a picture.

    Attributes:
        ground: median colour, RGB ``(3,)``.
        grain: how far a pixel of the ground is from the mean of its four neighbours, 8-bit RGB distance, median.
    """

    objects: tuple[Found, ...]
    ground: NDArray[np.float32]
    grain: float


def find_objects(image: NDArray[np.uint8]) -> list[Found]:
    """All objects of a square picture (size, size, 3)."""
    return list(view(image).objects)


def view(image: NDArray[np.uint8]) -> View:
    """Look at a square picture (size, size, 3)."""
    pixels = image.astype(np.float32)
    ground = ground_colour(image)
    from_ground = np.linalg.norm(pixels - ground, axis=-1)
    objects = tuple(_objects(pixels, from_ground))
    around = (pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]) / 4
    off = np.linalg.norm(pixels[1:-1, 1:-1] - around, axis=-1)[from_ground[1:-1, 1:-1] <= _DIFFERENT]
    return View(objects, ground, float(np.median(off)) if len(off) else 0.0)


def _objects(pixels: NDArray[np.float32], from_ground: NDArray[np.float32]) -> list[Found]:
    found = []
    for area in connected(from_ground > _DIFFERENT):
        if area.mean() < _SMALLEST:
            continue
        for part in _by_colour(area, pixels, from_ground):
            own = np.median(pixels[part & (from_ground >= np.median(from_ground[part]))], axis=0)
            # A soft edge ends where it is half the object's colour: soft stars would be taken for discs.
            mask = part & (np.linalg.norm(pixels - own, axis=-1) < from_ground)
            for piece in _apart(mask):
                rows, columns = np.nonzero(piece)
                shape, fit = shape_of(piece)
                name = shape if fit >= _FIT else ""
                x, y = columns.mean() + 0.5, rows.mean() + 0.5
                found.append(Found(nearest_colour(own)[0], name, x, y, float(piece.mean()), fit))
    return found


def _by_colour(
    area: NDArray[np.bool_], pixels: NDArray[np.float32], from_ground: NDArray[np.float32]
) -> list[NDArray[np.bool_]]:
    """An area (H, W), cut where two colours meet: shapes that touch, or one of two colours.

    Blends are no colours of their own: a colour counts where enough pixels lie close to it that are no part of an edge,
    and then every pixel belongs to the nearest of those that count.
    """
    distance = np.linalg.norm(pixels[area][:, None] - _PALETTE, axis=-1)
    plain = (distance.min(axis=1) < _CLOSE) & ~_edges(pixels)[area]
    close = np.bincount(distance.argmin(axis=1)[plain], minlength=len(_NAMES))
    counting = np.flatnonzero(close >= max(_SMALLEST * area.size, _SHARE * area.sum()))
    if len(counting) < 2:
        return [area]
    nearest = np.full(area.shape, -1)
    nearest[area] = counting[distance[:, counting].argmin(axis=1)]
    parts = [part for colour in counting for part in connected(nearest == colour)]
    return [part for part in parts if part.mean() >= _SMALLEST]


def _edges(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a picture (H, W, 3) changes much within four pixels: true on both sides of a soft edge, too."""
    steep = np.zeros(pixels.shape[:2], dtype=bool)
    for axis in (0, 1):
        before, after = np.roll(pixels, 2, axis), np.roll(pixels, -2, axis)
        steep |= np.linalg.norm(after - before, axis=-1) > _STEEP
    return steep


def _apart(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """A mask (H, W), cut at its waists if the pieces are clearly better shapes than the whole: shapes that touch."""
    fit = shape_of(mask)[1]
    rows, columns = np.nonzero(mask)
    box = slice(rows[0], rows[-1] + 1), slice(columns.min(), columns.max() + 1)
    core = own = mask[box]
    while fit < _WHOLE and core.sum() >= 2 * _SEED:
        core = _eroded(core)
        seeds = [seed for seed in connected(core) if seed.sum() >= _SEED]
        if len(seeds) < 2:
            continue
        pieces = [np.zeros_like(mask) for _ in seeds]
        for piece, grown in zip(pieces, _regrown(seeds, own), strict=True):
            piece[box] = grown
        fits = [shape_of(piece)[1] for piece in pieces]
        if min(piece.mean() for piece in pieces) >= _SMALLEST and min(fits) >= max(fit + _BETTER, _FIT):
            return pieces
    return [mask]


def _neighbours(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The mask (H, W) moved by one pixel in four directions."""
    wide = np.pad(mask, 1)
    return [wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]]


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.logical_and.reduce([mask, *_neighbours(mask)])


def _regrown(seeds: list[NDArray[np.bool_]], mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Seeds grown back within a mask (H, W) until they meet."""
    pieces = [seed.copy() for seed in seeds]
    while True:
        free = mask & ~np.logical_or.reduce(pieces)
        grew = False
        for piece in pieces:
            new = np.logical_or.reduce(_neighbours(piece)) & free
            np.logical_or(piece, new, out=piece)
            free &= ~new
            grew |= bool(new.any())
        if not grew:
            return pieces


def judge(image: NDArray[np.uint8], text: SceneText) -> Verdict:
    """Hold a square picture (size, size, 3) against what a prompt says."""
    return judge_found(view(image), text)


def judge_found(seen: View, text: SceneText) -> Verdict:
    """Hold what is seen in a picture against what a prompt says."""
    found, wanted = seen.objects, text.objects()
    objects = Counter((one.colour, one.shape) for one in found) == Counter((one.colour, one.shape) for one in wanted)
    relation = text.relation is None
    if text.relation is not None and objects:
        first, second = (next(f for f in found if (f.colour, f.shape) == (w.colour, w.shape)) for w in wanted)
        relation = relation_holds(text.relation, (first.x, first.y), (second.x, second.y))
    name, distance = nearest_colour(seen.ground)
    return Verdict(
        number=len(found) == len(wanted),
        colours=Counter(one.colour for one in found) == Counter(one.colour for one in wanted),
        objects=objects,
        relation=relation,
        ground=text.ground is None or (name == text.ground and distance < _NAMED_GROUND),
    )
