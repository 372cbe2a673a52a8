"""The world on nothing that `python -m tests.flat_ground` measures in."""

from __future__ import annotations

import numpy as np
import pytest

from asyndm_ext.world.scenes import scene_from_seed
from asyndm_ext.world.words import read
from tests.flat_ground import GREY, _without_ground, flat_world, main


@pytest.mark.parametrize("number", range(6))
def test_scenes_stand_on_grey_and_nothing_else_changes(number: int) -> None:
    usual = scene_from_seed(3, number)
    with flat_world():
        flat = scene_from_seed(3, number)
    assert flat.content == usual.content
    objects = flat.masks.any(axis=0)
    assert objects.any()
    grey = (flat.image == GREY).all(axis=-1)
    assert not grey[objects].any() and grey[~objects].mean() > 0.9, "but for the objects' soft edges"
    assert np.array_equal(scene_from_seed(3, number).image, usual.image), "the usual world is back"


def test_prompts_name_no_ground() -> None:
    texts = [str(_without_ground("unusual", np.random.default_rng(seed))) for seed in range(40)]
    assert all(read(text).text.ground is None and read(text).text.light is None for text in texts)
    assert len(set(texts)) > 20


def test_what_it_does_not_know_is_answered_with_how_to_call_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["draw"]) == 2 and "python -m tests.flat_ground train" in capsys.readouterr().out
