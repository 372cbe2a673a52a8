"""The scene generator: what the prompt says is what the pixels show."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from asyndm_ext.embedded.judge import find_objects, judge
from asyndm_ext.embedded.scenes import (
    COLOURS,
    RELATIONS,
    SHAPES,
    Group,
    Placed,
    SceneText,
    coverage,
    random_scene,
    relation_holds,
    scene_from_seed,
    scene_from_text,
)

SCENES = [scene_from_seed(11, number) for number in range(300)]
PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)


def nearest_colour(image, mask):
    """Name of the palette colour nearest to the mean of the masked pixels."""
    mean = image[mask].astype(np.float32).mean(axis=0)
    return list(COLOURS)[int(np.linalg.norm(PALETTE - mean, axis=1).argmin())]


def centre(mask):
    """Centre of mass (x, y) of a mask."""
    rows, columns = np.nonzero(mask)
    return columns.mean(), rows.mean()


def test_a_seed_is_a_scene():
    again, other = scene_from_seed(11, 4), scene_from_seed(11, 5)
    assert again.prompt == SCENES[4].prompt
    assert np.array_equal(again.image, SCENES[4].image)
    assert np.array_equal(again.masks, SCENES[4].masks)
    assert not np.array_equal(again.image, other.image)


def test_pictures_and_masks_have_the_documented_form():
    for scene in SCENES:
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape == (len(scene.objects), 128, 128) and scene.masks.dtype == np.bool_
        assert 1 <= len(scene.objects) <= 4


def test_each_mask_has_the_colour_of_its_object():
    for scene in SCENES:
        wanted = [group.colour for group in scene.text.objects()]
        assert [nearest_colour(scene.image, mask) for mask in scene.masks] == wanted, scene.prompt


def test_the_ground_has_the_named_colour_or_none_of_them():
    for scene in SCENES:
        ground = ~scene.masks.any(axis=0)
        if scene.text.ground:
            assert nearest_colour(scene.image, ground) == scene.text.ground
            assert scene.prompt.endswith(f" {scene.text.ground} background")
        else:
            mean = scene.image[ground].astype(np.float32).mean(axis=0)
            assert np.linalg.norm(PALETTE - mean, axis=1).min() > 40, scene.prompt


def test_objects_do_not_overlap_and_lie_inside():
    for scene in SCENES:
        assert scene.masks.sum(axis=0).max() == 1
        assert all(mask.mean() > 0.012 for mask in scene.masks)
        for edge in (scene.masks[:, 0], scene.masks[:, -1], scene.masks[:, :, 0], scene.masks[:, :, -1]):
            assert not edge.any()


def test_relations_hold_in_the_pixels():
    seen = Counter()
    for scene in SCENES:
        if scene.text.relation is None:
            continue
        seen[scene.text.relation] += 1
        (x0, y0), (x1, y1) = (centre(mask) for mask in scene.masks)
        if scene.text.relation == "to the left of":
            assert x0 < x1 - 10
        elif scene.text.relation == "to the right of":
            assert x0 > x1 + 10
        elif scene.text.relation == "above":
            assert y0 < y1 - 10
        else:
            assert y0 > y1 + 10
    assert set(seen) == set(RELATIONS) and min(seen.values()) >= 10


def test_counts_are_objects_in_the_picture():
    for number, word in ((2, "two"), (3, "three")):
        scene = scene_from_text(SceneText((Group("green", "star", number), Group("red", "circle"))), 3)
        assert scene.prompt == f"{word} green stars and a red circle"
        assert [nearest_colour(scene.image, mask) for mask in scene.masks] == ["green"] * number + ["red"]


def test_sentences():
    assert str(SceneText((Group("orange", "circle"),))) == "an orange circle"
    text = SceneText((Group("red", "circle"), Group("blue", "square")), "to the left of", "orange")
    assert str(text) == "a red circle to the left of a blue square on an orange background"
    three = SceneText((Group("red", "circle"), Group("blue", "square"), Group("white", "star")))
    assert str(three) == "a red circle and a blue square and a white star"


def test_the_world_is_used_as_announced():
    groups = Counter(len(scene.text.objects()) for scene in SCENES)
    assert groups[2] / len(SCENES) > 0.55
    used = {group for scene in SCENES for group in scene.text.groups}
    assert {group.colour for group in used} == set(COLOURS) and {group.shape for group in used} == set(SHAPES)
    named = sum(scene.text.ground is not None for scene in SCENES) / len(SCENES)
    assert 0.25 < named < 0.45


@pytest.mark.parametrize(
    ("shape", "area"),
    # Areas of the drawn forms for radius 1: disc of radius 0.85, square of half side 1/sqrt(2), equilateral triangle,
    # ten triangles between a tip (radius 1) and a dent (radius 0.48).
    [
        ("circle", np.pi * 0.85**2),
        ("square", 2.0),
        ("triangle", 3 * np.sqrt(3) / 4),
        ("star", 5 * 0.48 * np.sin(np.pi / 5)),
    ],
)
def test_coverage_is_anti_aliased_area(shape, area):
    covered = coverage(Placed("red", shape, 60.3, 66.8, 30.0))
    assert covered.sum() == pytest.approx(area * 900, rel=0.01)
    assert ((covered > 0) & (covered < 1)).sum() > 40  # soft edges


def test_other_sizes_scale_the_scene():
    scene = random_scene(np.random.default_rng(5), size=256)
    assert scene.image.shape == (256, 256, 3)
    assert 0.012 < scene.masks[0].mean() < 0.3


def test_unknown_shape_is_named():
    with pytest.raises(ValueError, match="hexagon"):
        coverage(Placed("red", "hexagon", 10, 10, 5))


# The judge


def test_the_judge_accepts_true_scenes():
    for scene in SCENES[:60]:
        assert judge(scene.image, scene.text).exact, scene.prompt
        found = sorted((one.x, one.y, one.shape) for one in find_objects(scene.image))
        placed = sorted((one.x, one.y, one.shape) for one in scene.objects)
        assert [one[2] for one in found] == [one[2] for one in placed]
        assert np.allclose([one[:2] for one in found], [one[:2] for one in placed], atol=1.0)


def test_the_judge_tells_what_is_wrong():
    red, blue = Group("red", "circle"), Group("blue", "square")
    image = scene_from_text(SceneText((red, blue), "above", "white"), 8).image
    swapped = judge(image, SceneText((Group("blue", "circle"), Group("red", "square"))))
    assert swapped.number and swapped.colours and not swapped.objects and not swapped.exact
    below = judge(image, SceneText((red, blue), "below"))
    assert below.objects and not below.relation and not below.exact
    black = judge(image, SceneText((red, blue), "above", "black"))
    assert black.objects and black.relation and not black.ground and not black.exact
    assert not judge(image, SceneText((red,))).number


def test_relation_holds_by_a_distance():
    assert relation_holds("to the left of", (10, 50), (30, 0), by=20)
    assert not relation_holds("to the left of", (10, 50), (30, 0), by=21)
    assert relation_holds("above", (0, 10), (0, 30)) and not relation_holds("below", (0, 10), (0, 30))
