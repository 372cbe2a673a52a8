"""Other people's extensions together with this one, as they are.

``ASYNDM_EXTENSIONS`` names a folder with checkouts of them, each in a folder of its repository's name; those that are
not there, or that this WebUI does not load, are skipped. ADetailer gets a stand-in for its detector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, Lacking, Pictures, WebUI
from .test_asyndm import SETTINGS, difference, nothing_left

pytestmark = pytest.mark.xdist_group("webui")

EXTENSIONS = "ASYNDM_EXTENSIONS"
DETECTOR = Path(__file__).resolve().parent / "detector_extension"
SAMPLERS = ("Euler a", "DPM++ 2M SDE", "DDIM")
PROMPT = "a red cat eating a sandwich"
SIZE = 192


@dataclass(frozen=True)
class Other:
    """An extension, and a request that it does something to.

    Attributes:
        folders: of its checkout; the first one that is there.
        title: of its script. args: of a request.
    """

    folders: tuple[str, ...]
    title: str
    args: list[Any]
    request: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Samplers that it does not go with."""
    only: tuple[str, ...] = ()
    """The WebUIs that it does something in, where it is loaded in others as well."""

    def folder(self) -> Path | None:
        """Where it is, if it is there."""
        places = [Path(os.environ.get(EXTENSIONS, os.devnull)) / name for name in self.folders]
        return next((place for place in places if place.is_dir()), None)


REGIONS = [True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "", *[False] * 3]
REGIONS_REST = [[], "0", "0", "0.4", None, "0", "0", False]
THRESHOLDING = [True, 3.0, 98.0, "Constant", 0.0, "Constant", 0.0, 4.0, True, "MEAN", "AD", 1.0]
ADETAILER = Other(
    ("aadetailer-neoforge", "adetailer"),
    "ADetailer",
    [True, False, {"ad_model": "mediapipe_face_full", "ad_denoising_strength": 0.7, "ad_prompt": "a dog"}],
)
OTHERS = {
    "detail daemon": Other(
        ("sd-webui-detail-daemon",),
        "Detail Daemon",
        [True, True, False, "both", 0.2, 0.8, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0, True],
    ),
    "regional prompter": Other(
        ("sd-webui-regional-prompter",),
        "Regional Prompter",
        [*REGIONS, "Attention", *REGIONS_REST],
        {"prompt": "a red cat BREAK a blue dog"},
    ),
    "regional prompter's latents": Other(
        ("sd-webui-regional-prompter",),
        "Regional Prompter",
        [*REGIONS, "Latent", *REGIONS_REST],
        {"prompt": "a red cat BREAK a blue dog"},
    ),
    "dynamic thresholding": Other(
        ("sd-dynamic-thresholding",),
        "Dynamic Thresholding (CFG Scale Fix)",
        THRESHOLDING,
        {"cfg_scale": 12},
        without=("DDIM",),
        only=("a1111",),
    ),
    "negpip": Other(("sd-webui-negpip",), "NegPiP", [True], {"prompt": f"{PROMPT}, (a wooden table:-1.5)"}),
    "perturbed attention": Other(
        ("sd-perturbed-attention",),
        "Perturbed-Attention Guidance",
        [True, 3.0, 0.0, "full", 0.0, "middle", 0, "", False, 7.0, 3.0, 0.0, "full", 0.0, -1.0, -1.0],
    ),
    "forge couple": Other(
        ("sd-forge-couple",),
        "Forge Couple",
        [True, False, "Basic", "", "Horizontal", "None", 0.5, []],
        {"prompt": "a red cat\na blue dog"},
        only=("forge", "neo", "classic", "reforge"),
    ),
    "adetailer": ADETAILER,
}


@pytest.fixture(scope="module")
def servers(launch: Callable[..., WebUI]) -> Iterator[tuple[WebUI, WebUI]]:
    """A WebUI with all of them, without and with the extension under test."""
    found = {folder.name: folder for folder in (other.folder() for other in OTHERS.values()) if folder is not None}
    if not found:
        raise Lacking(f"{EXTENSIONS} names no folder with other extensions")
    # Before ADetailer, in the order of their names.
    found = {"aa-detector": DETECTOR, "asyndm-e2e-probe": PROBE, **found}
    options = {"ad_script_names": "asyndm"}
    both = tuple(
        launch(name, extensions={**found, **ours}, options=options)
        for name, ours in (("others", {}), ("others-asyndm", {"asyndm": REPOSITORY}))
    )
    yield both
    for server in both:
        server.stop()


@pytest.fixture
def bare(servers: tuple[WebUI, WebUI]) -> WebUI:
    return servers[0]


@pytest.fixture
def webui(servers: tuple[WebUI, WebUI]) -> WebUI:
    return servers[1]


def job(webui: WebUI, model: str, other: Other | None, settings: dict | None, **request: Any) -> Pictures:
    scripts: dict[str, Any] = {} if settings is None else {"AsynDM": {"args": [settings]}}
    if other is not None:
        if other.title.lower() not in webui.get("/sdapi/v1/scripts")["txt2img"]:
            raise Lacking(f"{webui.about.title} does not load {other.title}")
        scripts[other.title] = {"args": other.args}
    size = {"width": SIZE, "height": SIZE}
    return webui.txt2img(model, **{"prompt": PROMPT, **size, **request}, alwayson_scripts=scripts)


@pytest.mark.parametrize("model", ["tiny-sd1", "tiny-sdxl"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", [name for name, other in OTHERS.items() if other is not ADETAILER])
def test_both_effects_can_be_seen(bare: WebUI, webui: WebUI, name: str, sampler: str, model: str) -> None:
    other = OTHERS[name]
    if other.folder() is None:
        raise Lacking(f"no {other.folders[0]} in {EXTENSIONS}")
    if other.only and webui.kind not in other.only:
        raise Lacking(f"{other.title} does nothing in {webui.about.title}")
    if sampler in other.without:
        pytest.skip(f"{other.title} does not go with {sampler}")
    request = {**other.request, "sampler_name": sampler}
    settings = {**SETTINGS, "objects": ["cat"]}
    plain = job(bare, model, None, None, **request)
    alone = job(bare, model, other, None, **request)
    assert difference(plain.image, alone.image) > 2, "it does something by itself"
    assert job(webui, model, other, None, **request).png == alone.png, "off is absent"
    zero = job(webui, model, other, {**settings, "strength": 0}, **request)
    assert difference(zero.image, alone.image) <= 1, zero.infotext
    both = job(webui, model, other, settings, **request)
    ours = job(webui, model, None, settings, **request)
    if "not applied" in both.infotext:
        assert both.image.shape == alone.image.shape and difference(both.image, alone.image) == 0, both.infotext
        raise Lacking(f"{other.title}: {both.infotext.partition('not applied: ')[2]}")
    assert difference(both.image, alone.image) > 2 and difference(both.image, ours.image) > 2
    nothing_left(webui)
    assert job(webui, model, None, None, **request).png == plain.png, "nothing is left"


def test_adetailer(bare: WebUI, webui: WebUI) -> None:
    """Its own: what it repaints changes, with AsynDM in its pass or not, and nothing else does."""
    if ADETAILER.folder() is None:
        raise Lacking(f"no {ADETAILER.folders[-1]} in {EXTENSIONS}")

    def picture(other: Other | None, settings: dict | None, server: WebUI = webui) -> Pictures:
        return job(server, "tiny-sd1", other, settings, seed=5, cfg_scale=5)

    def repainted(before: Pictures, after: Pictures) -> bool:
        """The middle half of the picture, dilated and blurred."""
        changed = np.abs(before.image.astype(int) - after.image.astype(int)).max(axis=2) > 1
        inside = np.zeros_like(changed)
        inside[SIZE // 8 : -SIZE // 8, SIZE // 8 : -SIZE // 8] = True
        return bool(changed[inside].any()) and not changed[~inside].any()

    settings = {"strength": 0.8}
    plain, alone = picture(None, None, bare), picture(ADETAILER, None, bare)
    assert repainted(plain, alone), "it has found its face"
    assert picture(ADETAILER, None).png == alone.png
    ours = picture(None, settings)
    left_alone = picture(ADETAILER, settings)
    asked = picture(ADETAILER, {**settings, "adetailer": True})
    ran = webui.get("/asyndm/v1/last-run?masks=false")["passes"]
    assert [(one["kind"], one["objects"], one["finished"]) for one in ran] == [
        ("txt2img", [["cat", "sandwich"]], True),
        ("adetailer", [["dog"]], True),
    ]
    assert repainted(ours, left_alone) and repainted(ours, asked) and repainted(left_alone, asked)
    zero = picture(ADETAILER, {**settings, "strength": 0, "adetailer": True})
    assert difference(zero.image, alone.image) <= 1
    nothing_left(webui)
    assert picture(None, None).png == plain.png
