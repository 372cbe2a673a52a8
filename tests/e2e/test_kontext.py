"""FLUX.1 Kontext in Forge: reference pictures, whose tokens follow the picture's and keep the WebUI's own noise level.

Forge itself knows nothing of it. ``ASYNDM_KONTEXT`` names the folder of the extension that brings it,
https://github.com/DenOfEquity/forge2_flux_kontext (run with commit 13d6ec5 of 2025-09-12): while a job runs, it puts a
forward of its own in the place of that of Forge's class for Flux, which appends the references' tokens to the
picture's, with the first of the three position ids at 1, and cuts them off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, ApiError, Pictures, WebUI, to_base64
from .test_asyndm import GREY_LEVELS, PROMPT, SETTINGS, difference, levels, nothing_left
from .test_forge import SIMPLE
from .test_regions import box, picture, slow_box

MODEL = "tiny-flux"
TITLE = "Forge FluxKontext"
SAMPLERS = ("Euler", "DPM++ 2M", "Euler a", "DDIM")
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(scope="module")
def servers(launch: Callable[..., WebUI], kontext: Path) -> Iterator[tuple[WebUI, WebUI]]:
    """Forge with the extension for Kontext, without and with the extension under test."""
    both = {"asyndm-e2e-probe": PROBE, "kontext": kontext}
    found = launch("plain-kontext", extensions=both), launch("kontext", extensions={"asyndm": REPOSITORY, **both})
    yield found
    for server in found:
        server.stop()


@pytest.fixture
def plain_webui(servers: tuple[WebUI, WebUI]) -> WebUI:
    return servers[0]


@pytest.fixture
def webui(servers: tuple[WebUI, WebUI]) -> WebUI:
    return servers[1]


def reference(width: int = 128, height: int = 128) -> str:
    """A picture to go by."""
    return to_base64(picture(width, height)[:, ::-1])


ONE = [True, reference(), None, "no change", False]
# 17 x 25 latent pixels, which are padded to whole patches, and a second picture in the size of the one to be made.
TWO = [True, reference(200, 136), reference(160, 160), "no change", False]


def scripts(settings: dict | None, references: list | None, probe: dict | None = None) -> dict:
    """The always-on scripts of a request; None leaves one out."""
    found: dict = {} if settings is None else {"AsynDM": {"args": [settings]}}
    if references is not None:
        found[TITLE] = {"args": references}
    if probe is not None:
        found["asyndm probe"] = {"args": [probe]}
    return {"alwayson_scripts": found}


def make(
    webui: WebUI, settings: dict | None, references: list | None = ONE, probe: dict | None = None, **request: object
) -> Pictures:
    return webui.txt2img(MODEL, **{"prompt": PROMPT, **SIMPLE, **scripts(settings, references, probe), **request})


@pytest.mark.parametrize("references", [ONE, TWO], ids=["one reference", "two references"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_off_on_and_off_again(plain_webui: WebUI, webui: WebUI, references: list, sampler: str) -> None:
    def run(settings: dict | None, server: WebUI = webui) -> Pictures:
        return make(server, settings, references, sampler_name=sampler)

    before = run(None)
    assert before.png == run(None, plain_webui).png
    assert difference(before.image, make(webui, None, None, sampler_name=sampler).image) > 5, "references do something"
    first = run(SETTINGS)
    nominal, level, strength = levels(webui)
    assert difference(first.image, before.image) > 10
    assert first.png == run(SETTINGS).png, "same request, same pixels"
    nothing_left(webui)
    assert run(None).png == before.png

    assert level.shape[1:] == (1, 32, 32), "the picture's pixels, none of a reference"
    assert np.all(level[0] == nominal[0])
    assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
    assert np.all(level >= nominal[:, None, None, None] - 1e-9), "no pixel runs ahead of the host"
    slow = (strength > 0).mean(axis=(1, 2, 3))
    assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
    assert len(np.unique(level[2:-1])) > 3, "the levels differ from pixel to pixel"
    assert difference(before.image, run({**SETTINGS, "strength": 0}).image) <= GREY_LEVELS


def test_references_steer_the_picture_that_is_slow(webui: WebUI) -> None:
    """They are in the attention that the objects are found by, so other references give other masks."""
    masks = []
    for references in (None, ONE, TWO):
        make(webui, SETTINGS, references)
        masks.append(levels(webui)[2])
    assert not np.array_equal(masks[0][-1], masks[1][-1]) and not np.array_equal(masks[1][-1], masks[2][-1])


def test_images_of_a_batch_equal_their_seeds_alone(webui: WebUI) -> None:
    batch = make(webui, SETTINGS, TWO, batch_size=2, seed=10, width=384)
    strength = levels(webui)[2]
    assert strength.shape[1:] == (2, 32, 48)
    assert not np.array_equal(strength[-1, 0], strength[-1, 1])
    for i, image in enumerate(batch.images[-2:]):
        assert difference(image, make(webui, SETTINGS, TWO, seed=10 + i, width=384).image) <= GREY_LEVELS


def test_a_painted_mask_says_what_is_slow(webui: WebUI) -> None:
    """The use of it: the part that is to be edited lags, what is to stay leads."""
    plain = make(webui, None)
    given = {"region": "mask", "mask": to_base64(np.repeat(box(64, 96, 160, 192)[:, :, None], 3, axis=2))}
    slow = make(webui, given)
    nominal, level, strength = levels(webui)
    assert all(slow_box(one[0]) == (8, 12, 20, 24) for one in strength)
    inside = np.zeros((32, 32), dtype=bool)
    inside[12:24, 8:20] = True
    middle = len(nominal) // 2
    assert np.all(level[middle, 0][inside] > nominal[middle]) and np.all(level[middle, 0][~inside] == nominal[middle])
    assert difference(plain.image, slow.image) > 5
    assert difference(plain.image, make(webui, {**given, "strength": 0}).image) <= GREY_LEVELS


def test_inpainting(plain_webui: WebUI, webui: WebUI) -> None:
    mask = box(72, 88, 168, 200)
    inpaint = {"denoising_strength": 0.8, "mask_blur": 0, "steps": 8, "inpainting_fill": 1, "inpaint_full_res": False}

    def run(settings: dict | None, server: WebUI = webui) -> Pictures:
        request = {**inpaint, **SIMPLE, "prompt": PROMPT, "width": 256, "height": 256, **scripts(settings, TWO)}
        return server.img2img(picture(), MODEL, mask=mask, **request)

    plain = run(None)
    assert plain.png == run(None, plain_webui).png
    slow = run({"region": "mask"})
    nominal, level, strength = levels(webui)
    assert np.all(level[0] == nominal[0]) and nominal[0] < 1
    assert slow_box(strength[0, 0]) == (8, 10, 22, 26), "the mask, grown to whole tokens"
    assert difference(plain.image, slow.image) > 5
    assert difference(plain.image[mask == 0], slow.image[mask == 0]) <= GREY_LEVELS
    assert difference(plain.image, run({"region": "mask", "strength": 0}).image) <= GREY_LEVELS


def test_hires_fix_at_a_size_that_is_padded(webui: WebUI) -> None:
    """Both passes have the references; the extension makes them anew for the second."""
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7, "steps": 5}
    request = {**hires, "width": 200, "height": 256}
    make(webui, SETTINGS, [True, reference(), None, "to output", False], **request)
    widths = [len(record["level"][0][0]) for record in webui.get("/asyndm-probe/levels")]
    assert set(widths) == {25, 37}
    nothing_left(webui)


def test_an_error_leaves_what_it_leaves_without_us(plain_webui: WebUI, webui: WebUI) -> None:
    """The extension for Kontext itself leaves its forward in place until the next job that uses it has ended."""
    plain = make(webui, None)
    clean = webui.get("/asyndm-probe/state")
    left = []
    for settings, fault in ((None, "raise_at"), (SETTINGS, "raise_at"), (SETTINGS, "nan_at")):
        with pytest.raises(ApiError) as caught:
            make(webui, settings, probe={fault: 3})
        assert caught.value.status == 500
        left.append(webui.get("/asyndm-probe/state"))
        nothing_left(webui)
        assert make(webui, None).png == plain.png
        assert webui.get("/asyndm-probe/state") == clean
    assert left[0] == left[1] == left[2] != clean
    assert plain.png == make(plain_webui, None).png


@pytest.mark.parametrize("fault", ["interrupt_at", "skip_at"])
def test_interrupt_and_skip(webui: WebUI, fault: str) -> None:
    plain = make(webui, None)
    before = webui.get("/asyndm-probe/state")
    assert make(webui, SETTINGS, probe={fault: 3}).image.std() > 5
    after = webui.get("/asyndm-probe/state")
    for key in ("model", "patcher", "functions", "global_hooks", "callbacks", "samplers"):
        assert after[key] == before[key], key
    nothing_left(webui)
    assert make(webui, None).png == plain.png
