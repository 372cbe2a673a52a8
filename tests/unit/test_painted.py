"""What the panel's picture control becomes: paint, or the picture itself, or nothing yet."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from asyndm_ext.region.mask_image import decode
from asyndm_ext.ui.painted import MAX_SIDE, Painted, read

NONE = Painted("", "")
PHOTO = Painted("", "photo")


def blank(colour: tuple[int, ...] = (0, 0, 0, 255)) -> Image.Image:
    return Image.new("RGBA", (6, 4), colour)


def stroke(x: int, y: int, ground: int) -> Image.Image:
    """One white pixel on black (gradio 3) or on nothing (gradio 4)."""
    image = blank((0, 0, 0, ground))
    image.putpixel((x, y), (255, 255, 255, 255))
    return image


def controls(picture: Image.Image | None, paint: tuple[int, int] | None = None) -> list[Any]:
    """What each version's control gives for a picture and one painted pixel."""
    empty = picture or blank((0, 0, 0, 0))
    sketch = {"image": picture, "mask": stroke(*paint, 255) if paint else blank()}
    layers = [blank((0, 0, 0, 0)), *([stroke(*paint, 0)] if paint else [])]
    return [sketch, {"background": picture, "layers": layers, "composite": empty}]


def white(found: Painted) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(np.array(decode(found.text)) > 127)
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def photo(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Of a red house in a green field."""
    image = Image.new("RGB", size, (70, 120, 60))
    ImageDraw.Draw(image).rectangle((5, 5, 15, 15), fill=(180, 60, 40))
    return image.convert("RGBA")


def test_nothing_given() -> None:
    assert read(None) == NONE
    assert read({"image": None, "mask": None}) == NONE
    assert read({"background": None, "layers": [], "composite": None}) == NONE
    assert read({"background": blank((0, 0, 0, 0)), "layers": [blank((0, 0, 0, 0))], "composite": None}) == NONE


def test_a_black_and_white_picture_without_paint_is_the_mask() -> None:
    picture = stroke(2, 1, 255)
    for value in (picture, *controls(picture)):
        found = read(value)
        assert found.kind == "picture" and white(found) == [(2, 1)]


def test_a_photo_is_no_mask_unasked() -> None:
    for value in (photo(), *controls(photo())):
        assert read(value) == PHOTO
        asked = read(value, whole=True)
        assert asked.kind == "picture"
        assert np.array_equal(np.asarray(decode(asked.text)), np.asarray(photo().convert("L")))
        assert read(value, before=asked.text) == asked, "the same picture, sent again"
        other = photo().rotate(180)
        assert read({"image": other, "mask": None}, before=asked.text) == PHOTO, "another picture is asked about anew"


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_grey_jpeg_is_a_mask_and_a_colourful_one_is_not(quality: int) -> None:
    def through_jpeg(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGBA")

    grey = Image.fromarray(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8), "L")
    assert read(through_jpeg(grey)).kind == "picture"
    assert read(through_jpeg(photo())) == PHOTO


def test_what_is_transparent_has_no_colour() -> None:
    """White strokes that were saved on nothing: the hidden colours of the rest do not count."""
    picture = Image.new("RGBA", (6, 4), (200, 30, 30, 0))
    picture.putpixel((4, 3), (255, 255, 255, 255))
    found = read({"background": picture, "layers": [], "composite": picture})
    assert found.kind == "picture" and white(found) == [(4, 3)]


def test_paint_on_a_picture_is_the_mask() -> None:
    for ground in (blank((200, 100, 50, 255)), stroke(0, 0, 255)):
        for value in controls(ground, (5, 3)):
            for whole in (False, True):
                found = read(value, whole)
                assert found.kind == "painted" and white(found) == [(5, 3)]
    layers = [blank((0, 0, 0, 0)), stroke(0, 0, 0), stroke(3, 2, 0)]
    assert white(read({"background": photo(), "layers": layers, "composite": photo()})) == [(0, 0), (3, 2)]


def test_paint_of_any_colour_counts_in_gradio_4() -> None:
    red = blank((0, 0, 0, 0))
    red.putpixel((1, 1), (255, 0, 0, 255))
    assert white(read({"background": None, "layers": [red], "composite": red})) == [(1, 1)]


def test_of_a_large_photo_a_smaller_mask_is_kept() -> None:
    """It goes to the server with every job, and a mask is stretched anyway."""
    size = (3 * MAX_SIDE, 2 * MAX_SIDE)
    paint = Image.new("L", size, 0)
    ImageDraw.Draw(paint).rectangle((0, 0, size[0] // 2 - 1, size[1]), fill=255)
    found = decode(read({"image": Image.new("RGBA", size, (9, 99, 9, 255)), "mask": paint}).text)
    assert found.size == (MAX_SIDE, MAX_SIDE * 2 // 3)
    assert np.asarray(found).mean(axis=0)[[0, 1000, 1030, -1]].tolist() == [255, 255, 0, 0]
