"""The studio's functions, called as its page calls them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from asyndm_ext.studio.request import DRAWING, WITHOUT
from asyndm_ext.studio.runs import Desk
from asyndm_ext.studio.session import OUTPUTS, Studio
from asyndm_ext.ui.panel import NAMES

PROMPT = "a shark riding a bike"
SHOWN = tuple(name for name in NAMES if name not in WITHOUT)
SMALL = {"prompt": PROMPT, "seed": 5, "steps": 4, "width": 128, "height": 128}
WINDOW = SimpleNamespace(session_hash="one")


def of(blocks: Any, name: str) -> Any:
    """The event that calls a function of this name."""
    (found,) = [fn for fn in blocks.fns.values() if fn.name == name]
    return found


def values(blocks: Any, **changed: Any) -> list[Any]:
    """What the page would send: its own values, but for some."""
    names = (*DRAWING, *SHOWN)
    inputs = of(blocks, "draw").inputs[1:]
    assert len(inputs) == len(names)
    given = {**SMALL, **changed}
    return [given.get(name, component.value) for name, component in zip(names, inputs, strict=True)]


def draw(studio: Studio, sent: list[Any], desk: Desk | None = None, window: Any = WINDOW) -> Iterator[dict[str, Any]]:
    """A press on Run: what the page is given by the drawing, and at last by all three calls together."""
    begun = named(studio.begin(window))
    last: dict[str, Any] = begun
    for outputs in studio.draw(window, desk or Desk(), *sent):
        last = {**last, **named(outputs)}
        yield named(outputs)
    assert named(studio.settle(window)) == {name: last[name] for name in ("run", "interrupt")}


def named(outputs: list[Any]) -> dict[str, Any]:
    """Outputs by their names, without those that stay as they are."""
    unchanged = {"__type__": "update"}
    return {name: value for name, value in zip(OUTPUTS, outputs, strict=False) if value != unchanged}


def images(html: str) -> list[Image.Image]:
    """The pictures side by side."""
    side_by_side = html.split('"asyndm-compare"', maxsplit=1)[0]
    return [opened(one) for one in re.findall(r'<img src="(data:image/png;base64,[^"]+)"', side_by_side)]


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), dtype=int)
