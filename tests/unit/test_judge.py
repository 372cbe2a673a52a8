"""The small world's judge: its errors on true scenes, also wrong prompts, and shapes that touch."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("diffusers")

from asyndm_ext.embedded.judge import connected, find_objects, judge, view
from asyndm_ext.embedded.reading import read_text
from asyndm_ext.embedded.scenes import (
    COLOURS,
    SHAPES,
    Group,
    Placed,
    SceneText,
    coverage,
    render,
    scene_from_seed,
)
from asyndm_ext.evaluate.judge_check import check_judge, wrong_texts

GROUND = np.random.default_rng(0)


def touching(rng, same):
    """Two shapes that overlap in a few pixels at their nearest points."""
    while True:
        one, two = rng.choice(list(COLOURS), 2, replace=False)
        two = one if same else two
        (first, second), angle = rng.choice(SHAPES, 2), rng.uniform(0, 2 * np.pi)
        left = Placed(one, first, 64 - 20 * np.cos(angle), 64 - 20 * np.sin(angle), rng.uniform(15, 24))
        radius = rng.uniform(15, 24)
        for distance in np.arange(left.radius + radius + 2, 5, -0.5):
            right = Placed(two, second, left.x + distance * np.cos(angle), left.y + distance * np.sin(angle), radius)
            if ((coverage(left) > 0.5) & (coverage(right) > 0.5)).sum() >= 4:
                break
        if radius < min(right.x, right.y) and max(right.x, right.y) < 128 - radius:
            groups = Group(one, first), Group(two, second)
            return render(SceneText(groups), (left, right), rng)


@pytest.mark.parametrize(("same", "at_least"), [(False, 56), (True, 52)])
def test_shapes_that_touch_are_two(same, at_least):
    rng = np.random.default_rng(3)
    scenes = [touching(rng, same) for _ in range(60)]
    assert sum(judge(scene.image, scene.text).objects for scene in scenes) >= at_least


def test_an_object_of_two_colours_is_not_one():
    scene = render(SceneText((Group("red", "square"),)), (Placed("red", "square", 64, 64, 40),), GROUND)
    image = scene.image.copy()
    half = scene.masks[0].copy()
    half[:, :64] = False
    image[half] = COLOURS["green"]
    found = find_objects(image)
    assert sorted(one.colour for one in found) == ["green", "red"]
    assert not judge(image, scene.text).number


def test_a_form_that_is_none_has_no_shape():
    image = np.full((128, 128, 3), 128, np.uint8)
    image[60:68, 20:108] = COLOURS["blue"]  # a bar
    (bar,) = find_objects(image)
    assert (bar.colour, bar.shape) == ("blue", "") and bar.fit < 0.6
    assert not judge(image, SceneText((Group("blue", "square"),))).objects


def test_grain_is_what_is_left_of_noise():
    image = scene_from_seed(5).image
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    assert view(image).grain < 0.1 and 8 < view(noisy).grain < 20


@pytest.mark.parametrize("seed", range(5))
def test_connected_areas_are_a_flood_fills(seed):
    mask = np.random.default_rng(seed).random((40, 30)) < 0.6
    areas = connected(mask)
    assert np.array_equal(np.sum(areas, axis=0), mask.astype(int))
    for area in areas:
        flood = np.zeros_like(mask)
        todo = [tuple(np.argwhere(area)[0])]
        while todo:
            y, x = todo.pop()
            if 0 <= y < 40 and 0 <= x < 30 and mask[y, x] and not flood[y, x]:
                flood[y, x] = True
                todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        assert np.array_equal(flood, area)


def test_wrong_texts_are_wrong_in_one_point():
    rng = np.random.default_rng(0)
    text = read_text("a red circle above two blue stars on a white background")
    wrong = wrong_texts(text, rng)
    assert len(wrong) == 5 and all(other != text for other in wrong)
    assert [other.relation for other in wrong] == ["above"] * 3 + ["below", "above"]
    assert len(wrong_texts(read_text("a red circle"), rng)) == 3


def test_the_judges_errors_are_measured():
    class Perfect:
        device = "cpu"

        def encode(self, pixels):
            return pixels

        def decode(self, latents):
            return latents

    class Blind(Perfect):
        def decode(self, latents):
            return latents * 0 + 0.5

    prompts = ["a red circle", "a blue star and a green square on a black background"]
    found = check_judge(Perfect(), prompts, 20)
    assert (found.scenes, found.wrong, found.accepted) == (20, 10 * 3 + 10 * 4, 0)
    assert found.refused_drawn == found.refused_decoded == 0
    assert check_judge(Blind(), prompts, 20).refused_decoded == 20
