"""The bench's networks, as wide as tests can afford."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from asyndm_ext.bench.cases import Case, Kind
from asyndm_ext.bench.dit import DiTShape, Flux, MMDiT
from asyndm_ext.bench.unet import UNet, UNetShape

SIDE = 16
"""Of the latents that they are meant for."""
_TEXT = 7


def _case(name: str, kind: Kind, build: Callable[[], nn.Module], channels: int, labels: int, guided: bool) -> Case:
    return Case(name, kind, lambda full: build(), 2 * SIDE, channels, _TEXT, 24, labels, guided, "all", "all")


def _unet(levels: tuple[int, ...], transformers: tuple[int, ...], labels: int = 0) -> UNet:
    return UNet(UNetShape(32, levels, transformers, 1, context=24, head=16, labels=labels))


SMALL = {
    "sd21": _case("sd21", "eps", lambda: _unet((1, 2, 2, 2), (1, 1, 1, 0)), 4, 0, True),
    "sdxl": _case("sdxl", "eps", lambda: _unet((1, 2, 2), (0, 1, 2), 10), 4, 10, True),
    "sd3": _case("sd3", "flow", lambda: MMDiT(DiTShape(32, 4, 2, 24, 10)), 16, 10, True),
    "flux": _case("flux", "flow", lambda: Flux(DiTShape(32, 2, 1, 24, 10, singles=2, axes=(4, 6, 6))), 16, 10, False),
}
