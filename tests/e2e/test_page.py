"""The WebUI with its page: reloading it, and what a paste restores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields

import pytest

from asyndm_ext.settings import Settings

from .server import PROBE, REPOSITORY, ApiError, WebUI
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
    assert set(restored) == {field.name for field in fields(Settings)}
    assert page.post("/asyndm-probe/pasted", {"infotext": "a cat\nSteps: 6"})["enabled"] is False


def test_infotext_sent_with_a_request_restores_the_settings(page: WebUI) -> None:
    """Scenario 40, over the API: the host reads our controls from an infotext as a paste does."""
    if page.kind == "forge":  # it cannot read its own list of modules from an infotext
        with pytest.raises(ApiError, match="parameterized generic"):
            page.post("/sdapi/v1/txt2img", {"infotext": "a cat\nSteps: 6"})
        return
    settings = {"objects": ["cat", "sandwich"], "strength": 0.35, "curve": "exponential", "threshold": 1.4}
    first = on(page, "tiny-sd1", settings)
    again = page.post("/sdapi/v1/txt2img", {"infotext": first.infotext})
    restored = json.loads(again["info"])["infotexts"][0]
    assert restored.split("Version")[0] == first.infotext.split("Version")[0]
