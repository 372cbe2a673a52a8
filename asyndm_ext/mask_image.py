"""A mask that the user gives as a picture: white is slow, black is on time."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PIXELS = 2**26
"""Of a mask: 8192 x 8192. More takes gigabytes to look at."""


def decode(text: str) -> Image:
    """The picture in a base64 text (a ``data:`` URL or the plain characters), as Pillow's "L"; transparent is black.

    Raises:
        ValueError: not base64, not a picture, or one of more than :data:`MAX_PIXELS`.
    """
    from PIL import Image

    characters = text.strip()
    if characters.startswith("data:"):
        characters = characters.partition(",")[2]
    try:
        data = base64.b64decode("".join(characters.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the mask is not a picture in base64: {text[:40]!r}") from None
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
        picture.load()
        return _grey(picture)
    except Exception as error:  # each of Pillow's readers has errors of its own for a broken file
        raise ValueError(f"the mask is not a picture that can be read ({error})") from None


def _grey(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        # 16 bits of grey, whose upper values Pillow's conversion would all make white.
        return picture.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    shown = picture.convert("RGBA")
    black = Image.new("RGBA", shown.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, shown).convert("L")


def encode(mask: Image) -> str:
    """A picture as the base64 text that :func:`decode` reads."""
    file = io.BytesIO()
    mask.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def slow_fraction(mask: Image, size: tuple[int, int], invert: bool = False) -> Tensor:
    """How slow each latent pixel is: ``(1,1,H,W)`` float64, fractions. A pixel on the mask's edge is partly slow.

    Args:
        mask: of any size; it is stretched to the latent.
        size: of the latent, ``(H, W)``.
        invert: black is slow.

    Raises:
        ValueError: nothing is slow.
    """
    pixels = torch.frombuffer(bytearray(mask.convert("L").tobytes()), dtype=torch.uint8)
    picture = pixels.view(1, 1, mask.height, mask.width).double() / 255
    if invert:
        picture = 1 - picture
    if not bool(picture.any()):
        colour = "white" if invert else "black"
        raise ValueError(f"the mask is {colour} everywhere, so nothing would be slow")
    return torch.nn.functional.interpolate(picture, size, mode="area")
