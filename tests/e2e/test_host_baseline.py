"""The WebUI alone, without the extension under test: are its tiny models fit to test anything with?

If one of these fails, failures of the other end-to-end tests mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from .checkpoints import CONFIGS
from .server import PROBE as PROBE_EXTENSION
from .server import ApiError, WebUI

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DDIM")
OTHER_PROMPT = "a tall green tower by the sea"
PROBE = "asyndm probe"

pytestmark = pytest.mark.xdist_group("webui")


def probed(**settings: object) -> dict:
    """Part of a request that switches the probe on."""
    return {"alwayson_scripts": {PROBE: {"args": [settings]}}}


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean difference of two pictures in grey levels."""
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", [name for name in CONFIGS if name != "tiny-edit"])  # that one starts from a picture
def test_generates(plain_webui: WebUI, model: str, sampler: str, record_property) -> None:
    """A picture that is no constant, the same when asked again, another one for another prompt."""
    first = plain_webui.txt2img(model, sampler_name=sampler)
    assert first.image.shape == (256, 256, 3)
    assert first.image.std() > 15
    assert f"Model: {model}," in first.infotext

    again = plain_webui.txt2img(model, sampler_name=sampler)
    assert again.png == first.png

    other = plain_webui.txt2img(model, sampler_name=sampler, prompt=OTHER_PROMPT)
    effect = difference(first.image, other.image)
    record_property("seconds", round(again.seconds, 2))
    record_property("prompt_effect", round(effect, 1))
    print(f"{model} {sampler}: {again.seconds:.2f} s, prompt effect {effect:.1f} grey levels")
    assert effect > 5


def test_model_kinds(plain_webui: WebUI) -> None:
    """The WebUI takes the checkpoints for what they imitate."""
    for model, layers in (("tiny-sd1", "ldm"), ("tiny-sdxl", "sgm"), ("tiny-sd2v", "ldm"), ("tiny-sd2", "ldm")):
        if not plain_webui.has_model(model):
            continue
        plain_webui.use_model(model)
        classes = plain_webui.get("/asyndm-probe/state")["model"]["classes"]
        unet = {
            "": f"{layers}.modules.diffusionmodules.openaimodel.UNetModel",
            "backend": "backend.nn.unet.IntegratedUNet2DConditionModel",
            "ldm_patched": "ldm_patched.ldm.modules.diffusionmodules.openaimodel.UNetModel",
        }
        assert unet[plain_webui.about.code] in classes, model
        assert plain_webui.get("/sdapi/v1/options")["sd_model_checkpoint"] == f"{model}.safetensors"


def test_odd_size_and_large_size(plain_webui: WebUI) -> None:
    """No NaN at a size that is no multiple of 64, nor at 512."""
    assert plain_webui.txt2img("tiny-sd1", steps=2, width=200, height=328).image.shape == (328, 200, 3)
    assert plain_webui.txt2img("tiny-sd1", steps=2, width=512, height=512).image.std() > 15


def test_img2img_keeps_the_picture(plain_webui: WebUI) -> None:
    """With little noise the result depends on the picture that was given."""
    pictures = [plain_webui.txt2img("tiny-sd1", seed=seed).image for seed in (1, 2)]
    results = [plain_webui.img2img(picture, denoising_strength=0.3, seed=3).image for picture in pictures]
    assert difference(*results) > 5


class TestProbe:
    """The test extension does what the other tests rely on."""

    def test_records_calls_and_sigmas(self, plain_webui: WebUI) -> None:
        plain_webui.txt2img("tiny-sd1", steps=5, width=128, height=128, **probed(record_sigmas=True))
        last = plain_webui.get("/asyndm-probe/last")
        assert last["finished"]
        assert len(last["calls"]) == len(last["sigmas"]) == 5
        assert all(call["shape"] == [2, 4, 16, 16] for call in last["calls"])
        timesteps = [values[0] for values in last["timesteps"]]
        sigmas = [entry["values"][0] for entry in last["sigmas"]]
        assert timesteps == sorted(timesteps, reverse=True)
        assert timesteps[0] > 990
        assert sigmas == sorted(sigmas, reverse=True)

    def test_raise_reaches_the_user_and_leaves_nothing(self, plain_webui: WebUI) -> None:
        plain_webui.use_model("tiny-sd1")
        before = plain_webui.get("/asyndm-probe/state")
        with pytest.raises(ApiError, match="asyndm probe: fault in call 2") as caught:
            plain_webui.txt2img(width=128, height=128, **probed(raise_at=2))
        assert caught.value.status == 500
        assert plain_webui.get("/asyndm-probe/last")["fired"] == ["raise_at"]
        assert plain_webui.get("/asyndm-probe/state") == before
        assert before["model"]["hook_count"] == 0

    def test_nan_is_reported(self, plain_webui: WebUI) -> None:
        if plain_webui.about.is_forge:  # hands out what it has got
            assert plain_webui.txt2img("tiny-sd1", width=128, height=128, **probed(nan_at=2)).image.std() == 0
            return
        with pytest.raises(ApiError, match="NansException"):
            plain_webui.txt2img("tiny-sd1", width=128, height=128, **probed(nan_at=2))

    @pytest.mark.parametrize("fault", ["interrupt_at", "skip_at"])
    def test_interrupt_and_skip(self, plain_webui: WebUI, fault: str) -> None:
        plain_webui.txt2img("tiny-sd1", width=128, height=128, **probed(**{fault: 3}))
        last = plain_webui.get("/asyndm-probe/last")
        assert last["fired"] == [fault]
        assert len(last["calls"]) == 3

    def test_state_during_a_job(self, plain_webui: WebUI) -> None:
        plain_webui.txt2img("tiny-sd1", steps=2, width=128, height=128, **probed(snapshot=True))
        during = plain_webui.get("/asyndm-probe/last")["during"]
        assert "modules.sd_samplers_cfg_denoiser.CFGDenoiser.forward" in during["functions"]
        assert during["model"]["hook_count"] == 0

    def test_state_is_stable(self, plain_webui: WebUI) -> None:
        """Two jobs of the same model change nothing: a difference found with the extension is the extension's."""
        states = []
        for _ in range(2):
            plain_webui.txt2img("tiny-sdxl", steps=1, width=64, height=64)
            states.append(json.dumps(plain_webui.get("/asyndm-probe/state"), sort_keys=True))
        assert states[0] == states[1]


def test_page_and_reload(launch: Callable[..., WebUI]) -> None:
    """With the page the WebUI can reload its scripts; that alone leaves callbacks and hooks as they were."""
    server = launch("plain-page", extensions={"asyndm-e2e-probe": PROBE_EXTENSION}, page=True)
    server.txt2img("tiny-sd1", steps=1, width=64, height=64)
    states = [server.get("/asyndm-probe/state")]
    server.reload_page()
    server.txt2img("tiny-sd1", steps=1, width=64, height=64)
    states.append(server.get("/asyndm-probe/state"))
    server.stop()
    for part in ("callbacks", "duplicate_callbacks", "samplers", "scripts", "model"):
        assert states[0][part] == states[1][part], part


def test_webuiapi_client(plain_webui: WebUI) -> None:
    """The client library that people script a WebUI with works against it."""
    plain_webui.use_model("tiny-sd1")
    result = plain_webui.client().txt2img(prompt="a red cat", seed=1, steps=2, width=64, height=64)
    assert result.image.size == (64, 64)
