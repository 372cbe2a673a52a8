"""What a picture says about how it was made, and that every control comes back from it (scenario 40)."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from asyndm_ext.settings import FIELDS, Settings

from .server import ApiError, Pictures, WebUI
from .test_asyndm import PROMPT, SETTINGS, asyndm, off, on
from .test_regions import picture

pytestmark = pytest.mark.xdist_group("webui")

SMALL = {"width": 128, "height": 128, "steps": 6, "sampler_name": "Euler a"}
# Nothing in here is a default.
EVERYTHING = {
    "enabled": True,
    "objects": "cat:0.45, sandwich#1",
    "strength": 0.35,
    "curve": "exponential",
    "threshold": 1.4,
    "order": "in turn, last first",
    "region": "objects or mask",
    "mask_invert": True,
    "mask_source": "fixed",
    "soft": True,
    "smoothing": 0.75,
    "min_area": 0.05,
    "max_area": 0.6,
    "start": 0.15,
    "end": 0.9,
    "hold_after": 0.8,
    "hires": "first",
    "adetailer": True,
    "show": "clock",
    "save_shown": True,
    "compare_plain": True,
}


def png_info(webui: WebUI, result: Pictures) -> dict:
    """What the PNG Info tab reads from the picture."""
    answer = webui.post("/sdapi/v1/png-info", {"image": base64.b64encode(result.png[0]).decode()})
    assert answer["info"] == result.infotext
    return answer


def sent_to(webui: WebUI, tab: str, infotext: str) -> dict[str, Any]:
    """The controls of a tab after "Send to" with this infotext, those that are not touched left out."""
    values = webui.post("/asyndm-probe/pasted", {"infotext": infotext, "tab": tab})
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_every_control_comes_back(webui: WebUI, tab: str) -> None:
    white = base64.b64encode(_png(255)).decode()
    settings = {**EVERYTHING, "mask": white, "mask_invert": False}
    first = on(webui, "tiny-sd1", settings, **SMALL)
    restored = sent_to(webui, tab, png_info(webui, first)["info"])
    assert restored == {name: value for name, value in settings.items() if name != "mask"}
    assert {*restored, "mask"} == {"enabled", *(spec.name for spec in FIELDS)}
    # The picture that the mask is made of stays in its control.
    again = on(webui, "tiny-sd1", {**restored, "mask": white}, **SMALL)
    assert len(again.images) == len(first.images) == 3, "with the plain picture and that of the clocks"
    assert all(map(np.array_equal, again.images, first.images))
    assert again.infotext == first.infotext


def test_the_table_s_example_has_no_default_in_it() -> None:
    defaults = Settings().to_dict()
    assert [name for name, value in EVERYTHING.items() if value == defaults[name]] == []
    assert {*EVERYTHING, "mask"} == set(defaults)


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        ('a "red" cat', ['"red"']),
        ("a 512x512 cat", ["512x512"]),
        ("eine Katze 猫, größer", ["猫", "größer"]),
        ("a cat\\(fate\\) and a back\\slash", ["slash"]),
        ("a cat's hat; 100% <3", ["cat's hat", "100%"]),
        ("a cat and a cat", ["cat#2:0.25", "cat#1"]),
        ("an Emoji 🐈 cat", ["🐈"]),
    ],
)
def test_names_of_all_kinds_come_back(webui: WebUI, prompt: str, objects: list[str]) -> None:
    first = on(webui, "tiny-sd1", {"objects": objects}, prompt=prompt, **SMALL)
    restored = sent_to(webui, "txt2img", png_info(webui, first)["info"])
    assert Settings(objects=restored["objects"]).to_dict()["objects"] == objects
    again = on(webui, "tiny-sd1", restored, prompt=prompt, **SMALL)
    assert (again.png, again.infotext) == (first.png, first.infotext)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {
            "enable_hr": True,
            "hr_scale": 1.5,
            "denoising_strength": 0.6,
            "hr_prompt": 'a cat, "big": 1',
            "hr_upscaler": "Latent",
        },
        {"refiner_checkpoint": "tiny-sd2", "refiner_switch_at": 0.8},
        {"s_min_uncond": 2.0, "eta": 0.5, "tiling": True, "negative_prompt": 'ugly, "bad": worse'},
    ],
    ids=["plain", "hires", "refiner", "options"],
)
def test_other_keys_survive(webui: WebUI, request_: dict) -> None:
    """Beside ours, the host's and other extensions' entries are read as without ours."""
    without = png_info(webui, off(webui, "tiny-sd1", prompt=PROMPT, **{**SMALL, **request_}))
    beside = png_info(webui, on(webui, "tiny-sd1", {**EVERYTHING, "region": "objects"}, **{**SMALL, **request_}))
    others = {key: value for key, value in beside["parameters"].items() if not key.startswith("AsynDM")}
    assert others == without["parameters"]
    assert len(beside["parameters"]) > len(others) + 10


def test_a_picture_without_asyndm_switches_off_and_leaves_the_rest(webui: WebUI) -> None:
    infotext = png_info(webui, off(webui, "tiny-sd1", prompt=PROMPT, **SMALL))["info"]
    assert sent_to(webui, "txt2img", infotext) == {"enabled": False}


def test_img2img_pictures(webui: WebUI) -> None:
    settings = {**SETTINGS, "strength": 0.6}
    result = webui.img2img(picture(128, 128), "tiny-sd1", prompt=PROMPT, **SMALL, **asyndm(settings))
    restored = sent_to(webui, "img2img", png_info(webui, result)["info"])
    assert restored["enabled"] is True and restored["strength"] == 0.6 and restored["objects"] == "cat, sandwich"


def test_the_buttons_below_a_picture_take_the_controls_along(webui: WebUI) -> None:
    """ "Send to img2img" copies the controls, except for the mask, which is a picture for another size."""
    names = webui.get("/asyndm-probe/sent-along")
    assert names["txt2img"] == names["img2img"]
    assert set(names["txt2img"]) == {"enabled", *(spec.name for spec in FIELDS)} - {"mask"}


def test_infotext_sent_with_a_request_restores_the_settings(webui: WebUI) -> None:
    """Over the API the host reads our controls from an infotext as a paste does."""
    if webui.about.code == "backend":  # it cannot read its own list of modules from an infotext
        with pytest.raises(ApiError, match="parameterized generic"):
            webui.post("/sdapi/v1/txt2img", {"infotext": "a cat\nSteps: 6"})
        return
    first = on(webui, "tiny-sd1", {**EVERYTHING, "region": "objects"}, **SMALL)
    again = webui.post("/sdapi/v1/txt2img", {"infotext": first.infotext})
    restored = json.loads(again["info"])["infotexts"][0]
    assert restored.split(", Version")[0] == first.infotext.split(", Version")[0]


def _png(grey: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (16, 16), grey).save(file, "PNG")
    return file.getvalue()
