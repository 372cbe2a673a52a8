"""What gradio's picture controls give for a painted mask, as one picture. Without gradio, which differs by version."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from asyndm_ext.region.mask_image import encode

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["", "painted", "picture", "photo"]
"""Of a mask: none, what was painted, the picture itself, and a picture that is none without paint on it."""

MAX_SIDE = 2048
"""Of the mask that is kept: four times the latent of a picture of 4096 pixels. Photos are larger, and the text goes to
the server with every job."""

_COLOURFUL = 24
"""Between a pixel's channels; a grey JPEG stays below it."""


@dataclass(frozen=True)
class Painted:
    """The mask in base64, "" without one, and what it is."""

    text: str = ""
    kind: Kind = ""


def read(value: Any, whole: bool = False, before: str = "") -> Painted:
    """Where something is painted, only the paint counts; else the picture does, if it has no colours.

    Args:
        value: what the control gives: None, a Pillow image, gradio 3's ``{"image", "mask"}`` or gradio 4's
            ``{"background", "layers", "composite"}``.
        whole: a picture counts although it has colours.
        before: the mask until now. A picture in colour that is it has been asked for, and stays: the controls send one
            picture several times.
    """
    picture, paint = _parts(value)
    if paint is not None and paint.getbbox():
        return Painted(_text(paint), "painted")
    if picture is None or not picture.getbbox():
        return Painted()
    text = _text(picture)
    if not whole and text != before and _has_colours(picture):
        return Painted(kind="photo")
    return Painted(text, "picture")


def _parts(value: Any) -> tuple[Image | None, Image | None]:
    """The picture, and what is painted, as "L"."""
    if not isinstance(value, dict):
        return value, None
    if "layers" in value:
        return value.get("background"), _together([layer.getchannel("A") for layer in value["layers"]])
    mask = value.get("mask")
    return value.get("image"), None if mask is None else mask.convert("L")


def _together(layers: list[Image]) -> Image | None:
    from PIL import ImageChops

    return functools.reduce(ImageChops.lighter, layers) if layers else None


def _has_colours(picture: Image) -> bool:
    """Whether more than a hundredth of a picture is in colour, transparent parts being black as in a mask."""
    from PIL import Image, ImageChops

    small = picture.convert("RGBA")
    small.thumbnail((256, 256), Image.Resampling.BOX)
    red, green, blue, alpha = small.split()
    spread = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    spread = ImageChops.multiply(ImageChops.lighter(spread, ImageChops.difference(red, blue)), alpha)
    return sum(spread.histogram()[_COLOURFUL:]) > 0.01 * small.width * small.height


def _text(mask: Image) -> str:
    from PIL import Image

    if max(mask.size) > MAX_SIDE:
        mask = mask.copy()
        mask.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return encode(mask)
