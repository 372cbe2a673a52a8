"""The slow pixels in the live preview of the real WebUI: seen while a job waits in the middle, gone afterwards."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from asyndm_ext.picture.drawing import SLOW
from asyndm_ext.ui.preview import TINT

from .server import ApiError, Pictures, WebUI, from_png
from .test_asyndm import PROMPT, SETTINGS, asyndm, difference, levels, nothing_left

pytestmark = pytest.mark.xdist_group("webui")

OPTION = "asyndm_live_preview"
# Decoding needs no model that would have to be downloaded.
PREVIEWS = {
    "live_previews_enable": True,
    "show_progress_type": "Approx cheap",
    "show_progress_every_n_steps": 1,
    OPTION: True,
}
HOLD = 4
"""The call of the UNet in which jobs wait; the preview is that of the call before."""
REQUEST = {"prompt": PROMPT, "sampler_name": "Euler", "steps": 6, "width": 128, "height": 192, "seed": 1}


@pytest.fixture(autouse=True)
def options(webui: WebUI) -> Iterator[None]:
    webui.use_model("tiny-sd1")
    webui.post("/sdapi/v1/options", PREVIEWS)
    yield
    webui.post("/sdapi/v1/options", {"live_previews_enable": False, OPTION: False})


class Running:
    """A job in a thread of its own, waiting in the middle."""

    def __init__(self, webui: WebUI, request: dict) -> None:
        self.webui = webui
        self.result: Pictures | None = None
        self.error: ApiError | None = None
        self.thread = threading.Thread(target=self._send, args=(request,))
        self.thread.start()

    def _send(self, request: dict) -> None:
        try:
            self.result = self.webui.txt2img(**request)
        except ApiError as error:
            self.error = error

    def wait_until_held(self) -> None:
        deadline = time.monotonic() + 60
        while not self.webui.get("/asyndm-probe/last").get("held"):
            assert self.thread.is_alive() and time.monotonic() < deadline, "it never got there"
            time.sleep(0.02)

    def preview(self) -> np.ndarray | None:
        """What the page would be shown now."""
        picture = self.webui.get("/sdapi/v1/progress?skip_current_image=false")["current_image"]
        return from_png(base64.b64decode(picture)) if picture else None


@contextmanager
def held(
    webui: WebUI, settings: dict | None = SETTINGS, probe: dict | None = None, **request: Any
) -> Iterator[Running]:
    """A job that waits at the start of its fourth call for the end of this block."""
    scripts = asyndm(*([settings] if settings else []), probe={"hold_at": HOLD, **(probe or {})})
    running = Running(webui, {**REQUEST, **request, **scripts})
    try:
        running.wait_until_held()
        yield running
    finally:
        webui.post("/asyndm-probe/go", {})
        running.thread.join()


def without(webui: WebUI, **request: Any) -> np.ndarray:
    """The same preview as the host makes it."""
    webui.post("/sdapi/v1/options", {OPTION: False})
    with held(webui, **request) as running:
        plain = running.preview()
    webui.post("/sdapi/v1/options", {OPTION: True})
    assert plain is not None
    return plain


def expected(plain: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The preview tinted by hand: ``strength`` (H,W), as of :data:`SETTINGS`."""
    factor = plain.shape[0] // strength.shape[0]
    opacity = np.kron(strength / SETTINGS["strength"], np.ones((factor, factor)))[..., None] * TINT
    return plain * (1 - opacity) + np.array(SLOW) * opacity


@pytest.mark.parametrize("method", ["Approx cheap", "Full"])
def test_slow_pixels_are_tinted(webui: WebUI, method: str) -> None:
    webui.post("/sdapi/v1/options", {"show_progress_type": method})
    plain = without(webui)
    with held(webui) as running:
        shown = running.preview()
        strength = levels(webui)[2]
        assert webui.get("/asyndm-probe/state")["state"] != {}
    assert shown is not None and shown.shape == plain.shape
    assert len(strength) == HOLD - 1 and 0.02 < (strength[-1] > 0).mean() < 0.98
    assert np.abs(shown - expected(plain, strength[-1, 0])).max() <= 2
    assert difference(shown, plain) > 20
    assert webui.get("/asyndm-probe/state")["state"] == {}


def test_results_are_the_same_and_off_is_absent(webui: WebUI) -> None:
    with held(webui) as running:
        assert running.preview() is not None
    webui.post("/sdapi/v1/options", {OPTION: False})
    with held(webui) as other:
        assert webui.get("/asyndm-probe/state")["state"] == {}
    assert running.result is not None and other.result is not None
    assert running.result.png == other.result.png
    with held(webui, override_settings={OPTION: True}):
        assert webui.get("/asyndm-probe/state")["state"] != {}, "for this request alone"
    webui.post("/sdapi/v1/options", {OPTION: True})
    with held(webui, settings=None) as plain:
        assert webui.get("/asyndm-probe/state")["state"] == {}, "a job without AsynDM"
        assert plain.preview() is not None
    webui.post("/sdapi/v1/options", {"live_previews_enable": False})
    with held(webui):
        assert webui.get("/asyndm-probe/state")["state"] == {}, "no previews, no overlay"


@pytest.mark.parametrize("grid", [True, False])
def test_a_batch(webui: WebUI, grid: bool) -> None:
    webui.post("/sdapi/v1/options", {"show_progress_grid": grid})
    try:
        plain = without(webui, batch_size=3)
        with held(webui, batch_size=3) as running:
            shown = running.preview()
            strength = levels(webui)[2][-1]
    finally:
        webui.post("/sdapi/v1/options", {"show_progress_grid": True})
    assert shown is not None and shown.shape == plain.shape
    if not grid:
        assert np.abs(shown - expected(plain, strength[0])).max() <= 2
        return
    height, width = strength.shape[1:]
    columns = plain.shape[1] // width
    for image in range(3):
        top, left = image // columns * height, image % columns * width
        tile = np.s_[top : top + height, left : left + width]
        assert np.abs(shown[tile] - expected(plain[tile], strength[image])).max() <= 2
    assert not np.array_equal(strength[0], strength[1])
    assert difference(shown, plain) > 20


@pytest.mark.parametrize("subject", ["Combined", "Negative prompt"])
def test_other_subjects_of_the_preview(webui: WebUI, subject: str) -> None:
    """Forge knows one only."""
    if webui.kind not in ("a1111", "reforge"):
        pytest.skip("Forge has no such option")
    webui.post("/sdapi/v1/options", {"live_preview_content": subject})
    try:
        plain = without(webui)
        with held(webui) as running:
            shown = running.preview()
            strength = levels(webui)[2][-1, 0]
    finally:
        webui.post("/sdapi/v1/options", {"live_preview_content": "Prompt"})
    assert shown is not None
    assert np.abs(shown - expected(plain, strength)).max() <= 2


def test_the_hires_pass_has_its_own(webui: WebUI) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7, "steps": 4}
    probe = {"hold_at": 4 + 3}
    with held(webui, probe=probe, **hires) as running:
        shown = running.preview()
        strength = webui.get("/asyndm-probe/levels")[-1]["strength"][0]
    plain = without(webui, probe=probe, **hires)
    assert shown is not None
    assert np.array(strength).shape == tuple(webui.about.side(1.5 * side) // 8 for side in (192, 128))
    assert np.abs(shown - expected(plain, np.array(strength))).max() <= 2


@pytest.mark.parametrize("fault", ["raise_at", "interrupt_at", "skip_at"])
def test_whatever_happens_nothing_is_left(webui: WebUI, fault: str) -> None:
    before = webui.get("/asyndm-probe/state")
    plain = without(webui)
    with held(webui, probe={fault: HOLD}) as running:
        shown = running.preview()
    after = webui.get("/asyndm-probe/state")
    for key in ("state", "model", "functions", "global_hooks", "callbacks", "samplers"):
        assert after[key] == before[key], key
    assert after["state"] == {}
    nothing_left(webui)
    assert shown is not None and difference(shown, plain) > 20
    if fault == "raise_at":
        assert running.error is not None and running.error.status == 500
        return
    webui.post("/sdapi/v1/options", {OPTION: False})
    with held(webui, probe={fault: HOLD}) as other:
        pass
    assert running.result is not None and other.result is not None
    assert running.result.png == other.result.png, "what an interrupt returns has no tint"


def test_an_interrupt_that_returns_the_preview(webui: WebUI) -> None:
    """The WebUI's option for fast interrupts decodes the latent as the preview does; there is no tint in it."""
    webui.post("/sdapi/v1/options", {"live_preview_fast_interrupt": True})
    try:
        results = []
        for wanted in (True, False):
            webui.post("/sdapi/v1/options", {OPTION: wanted})
            with held(webui, probe={"interrupt_at": HOLD}) as running:
                assert running.preview() is not None
            assert running.result is not None
            results.append(running.result.png)
    finally:
        webui.post("/sdapi/v1/options", {"live_preview_fast_interrupt": False})
    assert results[0] == results[1]
