"""AUTOMATIC1111's flags and options for memory and precision: a server of its own for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, ApiError, WebUI
from .test_asyndm import GREY_LEVELS, SETTINGS, difference, levels, nothing_left, off, on

pytestmark = pytest.mark.xdist_group("webui")
SMALL = {"width": 128, "height": 128, "steps": 4, "sampler_name": "Euler"}


@dataclass(frozen=True)
class Way:
    """How a WebUI is started, and how far its pictures may be from those in full precision.

    Attributes:
        masks: share of the pixels whose mask may be another.
        grey: mean difference of the pictures, grey levels.
    """

    flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    masks: float = 0.0
    grey: float = 0.5


WAYS = {
    "lowvram": Way(("--lowvram",)),
    "medvram": Way(("--medvram",)),
    "channels last": Way(("--opt-channelslast",), masks=0.01),
    "upcast sampling": Way(("--upcast-sampling", "--precision", "autocast"), ("--no-half",), masks=0.1, grey=10),
    "half": Way(("--precision", "half"), ("--no-half",), masks=0.02, grey=2),
    # Eight bits of storage; on the CPU under autocast in bfloat16.
    "fp8": Way(options={"fp8_storage": "Enable"}, masks=0.25, grey=15),
}


@pytest.mark.parametrize("name", WAYS)
def test_flag(webui: WebUI, launch: Callable[..., WebUI], name: str, capsys: pytest.CaptureFixture) -> None:
    if webui.kind != "a1111":
        pytest.skip("these are AUTOMATIC1111's")
    way = WAYS[name]
    on(webui, "tiny-sd1", **SMALL)
    expected, (nominal, _, masks) = on(webui, **SMALL), levels(webui)
    server = launch(
        name.replace(" ", "-"),
        extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE},
        flags=way.flags,
        without=way.without,
        options=way.options,
    )
    try:
        try:
            plain = off(server, "tiny-sd1", **SMALL)
        except ApiError as error:
            if "not compiled with CUDA" not in error.message:
                raise
            pytest.skip("AUTOMATIC1111 itself, without AsynDM, needs CUDA for this")
        found, (their_nominal, level, their_masks) = on(server, **SMALL), levels(server)
        differs = float((their_masks != masks).mean())
        grey = float(np.abs(found.image.astype(int) - expected.image.astype(int)).mean())
        with capsys.disabled():
            print(f"\n{name}: {differs:.4f} of the masks differ, {grey:.2f} grey levels in the mean")
        assert np.isfinite(level).all() and np.allclose(their_nominal, nominal)
        assert np.all(np.diff(level, axis=0) <= 1e-9) and len(np.unique(level[2])) > 1
        assert found.image.std() > 5 and difference(found.image, plain.image) > 5
        assert differs <= way.masks and grey <= way.grey
        zero = on(server, settings={**SETTINGS, "strength": 0}, **SMALL)
        assert difference(zero.image, plain.image) <= GREY_LEVELS
        nothing_left(server)
        assert off(server, **SMALL).png == plain.png
    finally:
        server.stop()
