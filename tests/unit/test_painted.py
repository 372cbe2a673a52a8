"""What the panel's picture control becomes: paint, or the picture itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from asyndm_ext.mask_image import decode
from asyndm_ext.ui.painted import written


def blank(colour: tuple[int, ...] = (0, 0, 0, 255)) -> Image.Image:
    return Image.new("RGBA", (6, 4), colour)


def stroke(x: int, y: int, ground: int) -> Image.Image:
    """One white pixel on black (gradio 3) or on nothing (gradio 4)."""
    image = blank((0, 0, 0, ground))
    image.putpixel((x, y), (255, 255, 255, 255))
    return image


def white(value: Any) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(np.array(decode(written(value))) > 127)
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def test_nothing_given() -> None:
    assert written(None) == ""
    assert written({"image": None, "mask": None}) == ""
    assert written({"background": None, "layers": [], "composite": None}) == ""


def test_a_picture_without_paint_is_the_mask() -> None:
    picture = stroke(2, 1, 255)
    assert white(picture) == [(2, 1)]
    assert white({"image": picture, "mask": blank()}) == [(2, 1)]
    assert white({"background": picture, "layers": [blank((0, 0, 0, 0))], "composite": picture}) == [(2, 1)]


def test_paint_on_a_picture_is_the_mask() -> None:
    photo = blank((200, 100, 50, 255))
    assert white({"image": photo, "mask": stroke(5, 3, 255)}) == [(5, 3)]
    layers = [blank((0, 0, 0, 0)), stroke(0, 0, 0), stroke(3, 2, 0)]
    assert white({"background": photo, "layers": layers, "composite": photo}) == [(0, 0), (3, 2)]


def test_paint_of_any_colour_counts_in_gradio_4() -> None:
    red = blank((0, 0, 0, 0))
    red.putpixel((1, 1), (255, 0, 0, 255))
    assert white({"background": None, "layers": [red], "composite": red}) == [(1, 1)]
