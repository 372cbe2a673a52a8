"""The methods that AsynDM is held against, in the real WebUI: they act, together with AsynDM too, and leave nothing."""

from __future__ import annotations

import numpy as np
import pytest

from .server import ApiError, WebUI
from .test_asyndm import GREY_LEVELS, SETTINGS, difference, levels, nothing_left, off, on

ALONE = {"enabled": True, "region": "everything", "strength": 0}
# The middle of a tiny network says little, so it takes much of SEG to see it.
METHODS = {"zigzag": "zigzag", "seg": {"method": "seg", "seg_scale": 40, "seg_blur": "inf"}, "s-cfg": "s-cfg"}
NEUTRAL = (
    {"method": "seg", "seg_scale": 0},
    {"method": "seg", "seg_blur": 0},
    {"method": "zigzag", "zigzag_rounds": 0},
)
SAMPLERS = ("Euler", "DDIM")
MODELS = ("tiny-sd1", "tiny-sd2v", "tiny-sdxl")

pytestmark = pytest.mark.xdist_group("webui")


def scales(infotext: str) -> list[float]:
    line = infotext.split("AsynDM equivalent guidance: ")[1]
    return [float(one) for one in line.split(",")[0].split("\n")[0].split()]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", MODELS)
def test_neutral_settings_are_the_host_s_picture(webui: WebUI, model: str, sampler: str) -> None:
    plain = off(webui, model, sampler_name=sampler)
    for compare in NEUTRAL:
        neutral = on(webui, model, {**ALONE, "compare": compare}, sampler_name=sampler)
        assert difference(neutral.image, plain.image) <= GREY_LEVELS, compare
        found = scales(neutral.infotext)
        assert len(found) >= 5 and found == pytest.approx([7.0] * len(found), rel=0.02), compare
        nothing_left(webui)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_each_changes_the_picture_alone_and_beside_asyndm(webui: WebUI, model: str, sampler: str, method: str) -> None:
    plain = off(webui, model, sampler_name=sampler)
    alone = on(webui, model, {**ALONE, "compare": METHODS[method]}, sampler_name=sampler)
    assert f"AsynDM compare: {method}" in alone.infotext and "not applied" not in alone.infotext
    assert difference(alone.image, plain.image) > 2 * GREY_LEVELS
    assert np.isfinite(scales(alone.infotext)).all()
    slow = on(webui, model, sampler_name=sampler)
    both = on(webui, model, {**SETTINGS, "compare": METHODS[method]}, sampler_name=sampler)
    _, level, _ = levels(webui)
    assert len(np.unique(level[2])) > 1, "the clock is AsynDM's"
    assert min(difference(both.image, one.image) for one in (alone, slow, plain)) > 2 * GREY_LEVELS
    nothing_left(webui)
    assert off(webui, model, sampler_name=sampler).png == plain.png


def test_a_batch_is_its_pictures_one_by_one(webui: WebUI) -> None:
    for method, compare in METHODS.items():
        settings = {**SETTINGS, "compare": compare}
        together = on(webui, "tiny-sd2", settings, batch_size=2, seed=3)
        for number in (0, 1):
            alone = on(webui, "tiny-sd2", settings, seed=3 + number)
            assert difference(together.images[number], alone.image) <= 3 * GREY_LEVELS, method


def test_options_reach_the_method(webui: WebUI) -> None:
    weak, strong = (
        on(webui, "tiny-sd2", {**ALONE, "compare": {"method": "seg", "seg_scale": scale}}).image for scale in (1, 6)
    )
    plain = off(webui, "tiny-sd2").image
    assert np.abs(strong.astype(int) - plain).mean() > 2 * np.abs(weak.astype(int) - plain).mean()


def test_zigzag_s_many_calls_are_one_step_for_the_host(webui: WebUI) -> None:
    """A prompt that changes in the last step has changed nothing before it."""
    settings = {**ALONE, "compare": "zigzag"}
    early, late, never = (
        on(webui, "tiny-sd2", settings, prompt=text, steps=6).image
        for text in ("a [cat:dog:0.1]", "a [cat:dog:5]", "a cat")
    )
    assert difference(late, never) < difference(early, never)
    dog = on(webui, "tiny-sd2", settings, prompt="a [cat:dog:6]", steps=6).image
    assert difference(dog, never) == 0


def test_what_cannot_be_goes_on_without_us_and_says_so(webui: WebUI) -> None:
    plain = off(webui, "tiny-sd2", prompt="a cat AND a dog")
    several = on(webui, "tiny-sd2", {**ALONE, "compare": "s-cfg"}, prompt="a cat AND a dog")
    assert "not applied: compare: a prompt with AND" in several.infotext and difference(several.image, plain.image) == 0
    nothing_left(webui)


@pytest.mark.parametrize(
    ("compare", "sampler", "message"),
    [
        ("zigzag", "DPM++ 2M", "goes back and forth"),
        ("cfg++", "DDIM", "choose DDIM CFG"),
        ("sag", "Euler", "unknown method"),
        ({"method": "seg", "seg_scale": -1}, "Euler", "must not be negative"),
        (3, "Euler", "name of a method"),
    ],
)
def test_a_wrong_request_stops_with_a_message(webui: WebUI, compare: object, sampler: str, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        on(webui, "tiny-sd2", {**ALONE, "compare": compare}, sampler_name=sampler)
    nothing_left(webui)
