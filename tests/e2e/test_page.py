"""The WebUI with its page: reloading it, and defaults of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from asyndm_ext.settings import FIELDS, Field
from asyndm_ext.ui.xyz import axes

from .server import PROBE, REPOSITORY, WebUI
from .test_asyndm import levels, on

pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(scope="module")
def page(launch: Callable[..., WebUI]) -> WebUI:
    return launch("page", page=True, extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE})


def test_reload_twice(page: WebUI) -> None:
    """Scenario 6: every callback fires once, and the pictures stay the same."""
    before = on(page, "tiny-sd1")
    steps = len(levels(page)[0])
    state = page.get("/asyndm-probe/state")
    for _ in range(2):
        page.reload_page()
        assert on(page, "tiny-sd1").png == before.png
        assert len(levels(page)[0]) == steps
        after = page.get("/asyndm-probe/state")
        assert after["callback_counts"] == state["callback_counts"]
        assert after["scripts"] == state["scripts"]
        assert after["functions"] == state["functions"]


def test_pasting_restores_every_control(page: WebUI) -> None:
    """Scenario 40."""
    settings = {"objects": ["cat", "sandwich"], "strength": 0.35, "curve": "exponential", "threshold": 1.4}
    infotext = on(page, "tiny-sd1", settings).infotext
    restored = page.post("/asyndm-probe/pasted", {"infotext": infotext})
    expected = {**settings, "objects": "cat, sandwich", "enabled": True, "region": "objects"}
    assert {name: restored[name] for name in expected} == expected
    assert set(restored) == {"enabled", *(spec.name for spec in FIELDS)}
    assert page.post("/asyndm-probe/pasted", {"infotext": "a cat\nSteps: 6"})["enabled"] is False


def test_routes_and_axes_are_there_once(page: WebUI) -> None:
    """Scenarios 6 and 43."""
    expected = [axis.label for axis in axes(str)]
    for _ in range(2):
        labels = page.get("/asyndm-probe/axes")
        assert [label for label in labels if label.startswith("[AsynDM]")] == expected
        assert page.get("/asyndm-probe/own-routes") == [
            "/asyndm/v1/capabilities", "/asyndm/v1/last-run", "/asyndm/v1/tokens", "/asyndm/v1/validate",
        ]  # fmt: skip
        assert page.get("/asyndm/v1/capabilities")["model"]["loaded"] is True
        page.reload_page()


def test_defaults_of_one_s_own(page: WebUI) -> None:
    """What the settings' Defaults tab writes into ui-config.json is what the page shows after a reload; the API's
    defaults stay the extension's."""
    file = page.folder / "ui-config.json"
    before = json.loads(file.read_text(encoding="utf-8"))
    own = {}
    for spec in FIELDS:
        if spec.name == "mask":  # a picture is none to keep
            assert not any(f"/{spec.label}/" in key for key in before if key.startswith("customscript/asyndm.py/"))
            continue
        for tab in ("txt2img", "img2img"):
            key = f"customscript/asyndm.py/{tab}/{spec.label}/value"
            assert before[key] == (", ".join(spec.default) if spec.name == "objects" else spec.default)
            own[key] = _another(spec)
    own["customscript/asyndm.py/txt2img/AsynDM/value"] = True
    file.write_text(json.dumps({**before, **own}), encoding="utf-8")
    try:
        page.reload_page()
        shown = {one["props"].get("elem_id"): one["props"].get("value") for one in page.get("/config")["components"]}
        for spec in FIELDS:
            if spec.name != "mask":
                for tab in ("txt2img", "img2img"):
                    assert shown[f"script_{tab}_asyndm_{spec.name}"] == _another(spec)
        # Forge looks for its accordions by a class that is a function there, and restores none of them; Forge Classic
        # none of scripts, its own Soft Inpainting among them.
        assert shown["script_txt2img_asyndm_enabled-checkbox"] is (page.kind not in ("forge", "classic"))
        assert shown["script_img2img_asyndm_enabled-checkbox"] is False
        kept = json.loads(file.read_text(encoding="utf-8"))
        assert {key: kept[key] for key in own} == own
        assert "AsynDM strength: 0.7" in on(page, "tiny-sd1", steps=2).infotext
    finally:
        file.write_text(json.dumps(before), encoding="utf-8")
        page.reload_page()


def _another(spec: Field) -> Any:
    """A value that is not the default."""
    if spec.choices:
        return spec.choices[-1]
    if spec.limits is not None:
        return 0.5
    return not spec.default if spec.is_switch else "cat:0.5, \u732b"
