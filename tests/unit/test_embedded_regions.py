"""Every setting that means something to the embedded host acts in it: regions, masks, when they hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from support.tiny_model import tiny

from asyndm_ext.embedded.job import Job
from asyndm_ext.embedded.sampling import Result, count_of_all, run_variant, step_count
from asyndm_ext.region import mask_image
from asyndm_ext.settings import Settings

PROMPT = "a shark riding a bike"
STEPS = 6


def mask(left: float = 1.0, right: float = 0.0) -> str:
    """A picture of two halves, in base64."""
    picture = Image.new("L", (40, 40), round(255 * right))
    picture.paste(round(255 * left), (0, 0, 20, 40))
    return mask_image.encode(picture)


def job(**settings) -> Job:
    chosen = Settings(**{"enabled": True, "objects": ("shark", "bike"), **settings})
    return Job(PROMPT, 5, chosen, steps=STEPS, width=64, height=64)


def run(**settings) -> Result:
    return run_variant(tiny(), job(**settings), "asyndm")


def test_a_mask_is_what_is_slow():
    strength = run(region="mask", mask=mask(1.0, 0.5), strength=0.8, objects=()).strength
    assert strength.shape == (STEPS, 8, 8)
    np.testing.assert_allclose(strength[:, :, :4], 0.8)
    np.testing.assert_allclose(strength[:, :, 4:], 0.8 * 128 / 255)
    inverted = run(region="mask", mask=mask(), mask_invert=True, objects=()).strength
    assert (inverted[:, :, :4] == 0).all() and (inverted[:, :, 4:] == 0.7).all()


def test_masks_with_objects():
    # The first mask is of the same attention in all of them: no pixel has lagged yet.
    objects = run().strength[0]
    either = run(region="objects or mask", mask=mask()).strength[0]
    both = run(region="objects and mask", mask=mask()).strength[0]
    half = torch.zeros_like(objects)
    half[:, :4] = 0.7
    assert (objects > 0).any() and (objects == 0).any()
    assert torch.equal(either, torch.maximum(objects, half))
    assert torch.equal(both, torch.minimum(objects, half))


def test_everything_is_the_concave_schedule():
    ours = run(region="everything", objects=())
    assert torch.equal(ours.latent, run_variant(tiny(), job(), "concave").latent)


def test_a_fixed_mask_is_found_in_a_plain_pass_before():
    chosen = job(mask_source="fixed")
    steps = []
    fixed = run_variant(tiny(), chosen, "asyndm", on_step=lambda: steps.append(1))
    assert len(steps) == 2 * STEPS == count_of_all(tiny(), chosen, ("asyndm",))
    assert (fixed.strength == fixed.strength[0]).all() and 0 < fixed.slow_fraction[0] < 1
    assert len(fixed.predictions) == STEPS, "the plain pass is not part of the history"
    dynamic = run_variant(tiny(), job(), "asyndm")
    assert not (dynamic.strength == fixed.strength[0]).all()
    plain = run_variant(tiny(), job(), "plain")
    zero = run_variant(tiny(), job(mask_source="fixed", strength=0.0), "asyndm")
    assert torch.equal(zero.latent, plain.latent)


def test_how_many_steps_there_are():
    assert count_of_all(tiny(), job(), ("plain", "concave", "asyndm")) == 3 * step_count(tiny(), job()) == 18
    assert count_of_all(tiny(), job(mask_source="fixed"), ("plain", "asyndm")) == 18
    assert count_of_all(tiny(), job(mask_source="fixed"), ("plain",)) == 6
    assert count_of_all(tiny(), job(mask_source="fixed", region="everything"), ("asyndm",)) == 6


def test_from_when_to_when():
    strength = run(start=0.5, end=0.9).strength
    slow = (strength > 0).flatten(1).any(dim=1).tolist()
    assert slow == [False, False, False, True, True, False]
    held = run(hold_after=0.0).strength
    assert (held == held[0]).all()
    moving = run().strength
    assert torch.equal(moving[0], held[0]) and not (moving == held[0]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 0.3), ("smoothing", 2.0), ("min_area", 0.9), ("max_area", 0.03), ("soft", True), ("strength", 0.3)],
)
def test_each_of_these_changes_the_first_region(name, value):
    default, changed = run().strength[0], run(**{name: value}).strength[0]
    assert not torch.equal(default, changed)
    share = float((changed > 0).double().mean())
    if name == "min_area":
        assert share >= 0.9
    if name == "max_area":
        assert share <= 0.2, "two objects of a tenth each"
    if name == "soft":
        assert len(changed.unique()) > 2 and float(changed.max()) <= 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region": "mask"}, "the region 'mask' needs a mask"),
        ({"region": "objects or mask"}, "needs a mask"),
        ({"region": "mask", "mask": mask(0.0, 0.0)}, "black everywhere"),
        ({"region": "mask", "mask": mask(1.0, 1.0), "mask_invert": True}, "white everywhere"),
        ({"objects": ()}, "no object found"),
    ],
)
def test_what_cannot_be_drawn(settings, message):
    with pytest.raises(ValueError, match=message):
        job(**settings)


def test_a_job_without_asyndm_needs_no_object():
    off = Job("a cat", 5, Settings(), steps=STEPS, width=64, height=64)
    assert torch.isfinite(run_variant(tiny(), off, "plain").latent).all()


def test_what_there_is_to_know_is_told():
    one_step = Job(PROMPT, 5, job().settings, steps=1, width=64, height=64)
    assert "no pixel lagged behind" in (run_variant(tiny(), one_step, "asyndm").note or "")
    assert run_variant(tiny(), one_step, "plain").note is None
    assert "covered the whole picture" in (run(min_area=0.99).note or "")


def test_what_is_predicted_is_handed_out_as_it_comes():
    seen = []
    result = run_variant(tiny(), job(), "asyndm", on_prediction=seen.append)
    assert torch.equal(torch.cat(seen), result.predictions)
