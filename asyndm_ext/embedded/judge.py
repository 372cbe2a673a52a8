"""Count what is in a picture of the small world: which objects, where, on which ground; and hold it against a prompt.

No network: ground is what the picture's border shows, objects are the connected areas that differ from it, a colour is
the nearest name, a shape is the drawn form that overlaps best. On true scenes this is right 99 times of 100; on a
model's pictures it is strict, since two shapes that touch count as one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyndm_ext.embedded.scenes import COLOURS, SHAPES, Placed, SceneText, coverage, relation_holds

_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_DIFFERENT = 40.0  # 8-bit RGB distance from the ground at which a pixel belongs to an object
_SMALLEST = 0.006  # share of the picture; the smallest true object has 0.015
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
    """An object seen in a picture: centre of mass (pixels), share of the picture, overlap with its shape's form."""

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
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.pad(labels, 1)
        around = [spread[1:-1, 1:-1], spread[:-2, 1:-1], spread[2:, 1:-1], spread[1:-1, :-2], spread[1:-1, 2:]]
        following = np.where(mask, np.maximum.reduce(around), 0)
        if np.array_equal(following, labels):
            return [labels == label for label in np.unique(labels)[:0:-1]]
        labels = following


def shape_of(mask: NDArray[np.bool_]) -> tuple[str, float]:
    """The shape that overlaps a mask (size, size) best, given its area and centre of mass, and the overlap (IoU)."""
    rows, columns = np.nonzero(mask)
    best = ("", 0.0)
    for shape in SHAPES:
        ideal = Placed("", shape, columns.mean() + 0.5, rows.mean() + 0.5, float(np.sqrt(len(rows) / _AREA[shape])))
        covered = coverage(ideal, mask.shape[0]) >= 0.5
        overlap = float((covered & mask).sum() / (covered | mask).sum())
        best = max(best, (shape, overlap), key=lambda candidate: candidate[1])
    return best


def find_objects(image: NDArray[np.uint8]) -> list[Found]:
    """All objects of a square picture (size, size, 3)."""
    pixels = image.astype(np.float32)
    from_ground = np.linalg.norm(pixels - ground_colour(image), axis=-1)
    found = []
    for area in connected(from_ground > _DIFFERENT):
        if area.mean() < _SMALLEST:
            continue
        own = np.median(pixels[area & (from_ground >= np.median(from_ground[area]))], axis=0)
        # A soft edge ends where it is half the object's colour: soft stars would be taken for discs.
        mask = area & (np.linalg.norm(pixels - own, axis=-1) < from_ground)
        rows, columns = np.nonzero(mask)
        colour, _ = nearest_colour(own)
        shape, fit = shape_of(mask)
        found.append(Found(colour, shape, columns.mean() + 0.5, rows.mean() + 0.5, float(mask.mean()), fit))
    return found


def judge(image: NDArray[np.uint8], text: SceneText) -> Verdict:
    """Hold a square picture (size, size, 3) against what a prompt says."""
    found, wanted = find_objects(image), text.objects()
    objects = Counter((one.colour, one.shape) for one in found) == Counter((one.colour, one.shape) for one in wanted)
    relation = text.relation is None
    if text.relation is not None and objects:
        first, second = (next(f for f in found if (f.colour, f.shape) == (w.colour, w.shape)) for w in wanted)
        relation = relation_holds(text.relation, (first.x, first.y), (second.x, second.y))
    name, distance = nearest_colour(ground_colour(image))
    return Verdict(
        number=len(found) == len(wanted),
        colours=Counter(one.colour for one in found) == Counter(one.colour for one in wanted),
        objects=objects,
        relation=relation,
        ground=text.ground is None or (name == text.ground and distance < _NAMED_GROUND),
    )
