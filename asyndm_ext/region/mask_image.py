"""A mask that the user gives as a picture: white is slow, black is on time."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from os import PathLike
    from typing import IO

    from PIL.Image import Image


FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What a mask may be. Pillow opens dozens more, some of them with the help of other programs."""

SIDE = 4096
MAX_PIXELS = SIDE**2
"""Of a mask. A file of a few kilobytes can be a picture that takes gigabytes of memory."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""


def decode(text: str) -> Image:
    """The picture in a base64 text (a ``data:`` URL or the plain characters), as :func:`read` gives it.

    Raises:
        ValueError: not base64, or :func:`read` refuses it.
    """
    characters = text.strip()
    if characters.startswith("data:"):
        characters = characters.partition(",")[2]
    try:
        data = base64.b64decode("".join(characters.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the mask is not a picture in base64: {text[:40]!r}") from None
    return read(io.BytesIO(data))


def read(file: str | PathLike[str] | IO[bytes]) -> Image:
    """The picture in a file as Pillow's "L", upright. Transparent is black; of an animation it is the first picture.

    Raises:
        ValueError: not a picture, not in one of :data:`FORMATS`, or of more than :data:`MAX_PIXELS`, which is found out
            before anything is decoded.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as picture:
            _require_few_pixels(picture.size)
            picture.load()
            deep = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
            if picture.getexif().get(_ORIENTATION, 1) != 1:
                return _grey(ImageOps.exif_transpose(picture), deep)
            return _grey(picture, deep)
    except _TooLarge:
        raise
    except UnidentifiedImageError:
        raise ValueError("the mask is not a picture that can be read: it has to be a PNG, JPEG, WebP or BMP") from None
    except Exception as error:  # each of Pillow's readers has errors of its own for a broken file
        raise ValueError(f"the mask is not a picture that can be read ({error})") from None


class _TooLarge(ValueError):
    pass


def _require_few_pixels(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise _TooLarge(
            f"the mask is too large: it has {width} x {height} pixels, and {SIDE} x {SIDE} are the most. Make it "
            "smaller: it is stretched to the picture anyway"
        )


def _grey(picture: Image, deep: bool) -> Image:
    """As "L". ``deep``: 16 bits of grey, whose upper values Pillow's own conversion would all make white."""
    from PIL import Image

    if deep:
        return picture.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB").convert("L") if picture.mode == "P" else picture.convert("L")
    shown = picture if picture.mode == "RGBA" else picture.convert("RGBA")
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
    picture = pixels.view(1, 1, mask.height, mask.width).double().div_(255)
    if invert:
        picture.neg_().add_(1)
    if not bool(picture.any()):
        colour = "white" if invert else "black"
        raise ValueError(f"the mask is {colour} everywhere, so nothing would be slow")
    return torch.nn.functional.interpolate(picture, size, mode="area")
