"""SD3, a diffusion transformer on a rectified flow, in A1111; Forge has tests of its own for its transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from .server import ApiError, WebUI, to_base64
from .test_asyndm import GREY_LEVELS, PROMPT, SETTINGS, asyndm, difference, levels, nothing_left, off, on

MODEL = "tiny-sd3"
SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "Heun")
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(autouse=True)
def sd3(webui: WebUI) -> None:
    if webui.kind != "a1111":
        pytest.skip("SD3 as A1111 has it")


@pytest.mark.parametrize("sampler", [*SAMPLERS, "DDIM"])
def test_off_is_absent(plain_webui: WebUI, webui: WebUI, sampler: str) -> None:
    assert off(webui, MODEL, sampler_name=sampler).png == off(plain_webui, MODEL, sampler_name=sampler).png


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_on_differs_and_off_again_is_the_same(webui: WebUI, sampler: str) -> None:
    before = off(webui, MODEL, sampler_name=sampler)
    first = on(webui, MODEL, sampler_name=sampler)
    nominal, level, strength = levels(webui)
    assert difference(first.image, before.image) > 10
    assert first.png == on(webui, MODEL, sampler_name=sampler).png, "same request, same pixels"
    nothing_left(webui)
    assert off(webui, MODEL, sampler_name=sampler).png == before.png

    assert level.shape[1:] == (1, 32, 32)
    assert np.all(level[0] == nominal[0]) and np.all(level[-1] == nominal[-1])
    assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
    assert np.all(level >= nominal[:, None, None, None] - 1e-9), "no pixel runs ahead of the host"
    assert level.max() <= 1, "sigma of a rectified flow"
    slow = (strength > 0).mean(axis=(1, 2, 3))
    assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
    assert len(np.unique(level[2:-1])) > 3, "the levels differ from pixel to pixel"
    for corner in (level[:, :, ::2, ::2], level[:, :, ::2, 1::2], level[:, :, 1::2, ::2]):
        assert np.array_equal(corner, level[:, :, 1::2, 1::2]), "the pixels of a token share their level"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_zero_is_the_host_s_image(webui: WebUI, sampler: str) -> None:
    plain = off(webui, MODEL, sampler_name=sampler)
    zero = on(webui, MODEL, {**SETTINGS, "strength": 0}, sampler_name=sampler)
    assert difference(plain.image, zero.image) <= GREY_LEVELS


def test_everything_is_one_level_per_step(webui: WebUI) -> None:
    picture = on(webui, MODEL, {"region": "everything", "strength": 0.9})
    nominal, level, _ = levels(webui)
    assert np.all(level == level[:, :, :1, :1])
    assert np.all(level[1:-1] > nominal[1:-1, None, None, None])
    assert difference(picture.image, off(webui, MODEL).image) > 5


def test_images_of_a_batch_equal_their_seeds_alone(webui: WebUI) -> None:
    batch = on(webui, MODEL, batch_size=2, width=384, seed=10)
    _, _, strength = levels(webui)
    assert strength.shape[1:] == (2, 32, 48)
    assert not np.array_equal(strength[-1, 0], strength[-1, 1])
    for i, image in enumerate(batch.images[-2:]):
        assert difference(image, on(webui, MODEL, width=384, seed=10 + i).image) <= GREY_LEVELS


def test_a_painted_mask_is_levelled_per_token(webui: WebUI) -> None:
    """Its edge runs through the middle of tokens: those are half as slow, and all their pixels alike."""
    picture = np.zeros((256, 256, 3), dtype=np.uint8)
    picture[:, 8 * 11 :] = 255
    settings = {"region": "mask", "mask": to_base64(picture), "strength": 0.8}
    slow = on(webui, MODEL, settings)
    nominal, level, strength = levels(webui)
    assert np.allclose(strength[..., :10], 0) and np.allclose(strength[..., 10:12], 0.4)
    assert np.allclose(strength[..., 12:], 0.8)
    assert np.all(level[1:-1, ..., :10] == nominal[1:-1, None, None, None])
    assert np.all(level[1:-1, ..., 12:] > level[1:-1, ..., 10:12].max(axis=-1, keepdims=True))
    assert np.array_equal(level[..., 10], level[..., 11])
    assert difference(slow.image, off(webui, MODEL).image) > 5


def test_img2img_starts_where_the_host_does(webui: WebUI) -> None:
    picture = off(webui, MODEL).image
    request = {"denoising_strength": 0.6, "prompt": PROMPT}
    plain = webui.img2img(picture, MODEL, **request)
    slow = webui.img2img(picture, MODEL, **request, **asyndm(SETTINGS))
    nominal, level, _ = levels(webui)
    assert np.all(level[0] == nominal[0]) and nominal[0] < 1
    assert difference(plain.image, slow.image) > 5
    zero = webui.img2img(picture, MODEL, **request, **asyndm({**SETTINGS, "strength": 0}))
    assert difference(plain.image, zero.image) <= GREY_LEVELS


@pytest.mark.parametrize("fault", ["raise_at", "nan_at"])
def test_an_error_leaves_nothing_behind(webui: WebUI, fault: str) -> None:
    reference = off(webui, MODEL)
    before = webui.get("/asyndm-probe/state")
    with pytest.raises(ApiError) as caught:
        webui.txt2img(prompt=PROMPT, **asyndm(SETTINGS, probe={fault: 3}))
    assert caught.value.status == 500
    assert webui.get("/asyndm-probe/state") == before
    nothing_left(webui)
    assert off(webui, MODEL).png == reference.png


def test_samplers_that_do_not_go_with_sd3_say_so(webui: WebUI) -> None:
    """The WebUI gives a picture, though not a right one, and none at all with LCM."""
    for sampler in ("DDIM", "UniPC"):
        with pytest.raises(ApiError) as caught:
            on(webui, MODEL, sampler_name=sampler)
        assert "does not go with SD3" in json.loads(caught.value.body)["errors"]


def test_between_models(webui: WebUI) -> None:
    """A UNet, SD3, the UNet again: each has hooks of its own kind."""
    first = on(webui, "tiny-sd1")
    on(webui, MODEL)
    assert on(webui, "tiny-sd1").png == first.png
