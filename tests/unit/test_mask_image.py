"""Masks that are given as pictures: reading, refusing, fitting to the latent."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from asyndm_ext.region.mask_image import decode, encode, slow_fraction


def picture(pixels: np.ndarray, mode: str = "L") -> Image.Image:
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode)


def box(width: int, height: int, left: int, top: int, right: int, bottom: int) -> Image.Image:
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[top:bottom, left:right] = 255
    return picture(pixels)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_what_is_encoded_reads_back(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    text = encode(picture(pixels))
    for written in (text, f"data:image/png;base64,{text}", text[:20] + "\n" + text[20:]):
        assert np.array_equal(np.array(decode(written)), pixels)


def test_other_formats_and_transparency() -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (255, 255, 255)).save(file, "JPEG")
    assert np.array(decode(base64.b64encode(file.getvalue()).decode())).min() == 255
    strokes = np.zeros((4, 5, 4), dtype=np.uint8)
    strokes[..., :3] = 255  # white paint, but only where it is opaque
    strokes[1, 2, 3] = 255
    found = np.array(decode(encode(picture(strokes, "RGBA"))))
    assert found[1, 2] == 255 and found.sum() == 255


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "not a picture in base64: 'not base64!'"),
        ("ä", "not a picture in base64"),
        (base64.b64encode(b"some text").decode(), "not a picture that can be read"),
        (encode(box(8, 8, 0, 0, 4, 4))[:60], "not a picture that can be read"),
        ("data:image/png;base64,", "not a picture that can be read"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(text)


def saved(image: Image.Image, kind: str, **how: object) -> str:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "ICO", "PPM", "PDF"])
def test_only_four_formats_are_opened(kind: str) -> None:
    with pytest.raises(ValueError, match="it has to be a PNG, JPEG, WebP or BMP"):
        decode(saved(Image.new("L", (16, 16), 255), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes can be gigabytes of pixels."""
    sides = (4096, 4097) if kind in ("JPEG", "WEBP") else (8192, 8192)
    text = saved(Image.new("1" if kind == "PNG" else "L", sides), kind)
    assert kind == "BMP" or len(text) < 800_000
    decoded = []

    def load(self: Image.Image) -> None:
        decoded.append(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(ValueError, match=f"it has {sides[0]} x {sides[1]} pixels, and 4096 x 4096 are the most"):
        decode(text)
    assert decoded == []


def test_the_largest_that_is_allowed() -> None:
    assert decode(saved(Image.new("1", (4096, 4096), 1), "PNG")).getextrema() == (255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_lies_as_a_viewer_shows_it(kind: str, orientation: int) -> None:
    """A camera writes how it was held into EXIF; the hosts turn their pictures too."""
    mask = box(40, 24, 0, 0, 16, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = mask.convert("RGB")
    turned.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(turned).convert("L")
    found = decode(saved(mask.convert("RGB"), kind, exif=exif))
    assert found.size == expected.size == ((24, 40) if orientation > 4 else (40, 24))
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(expected)).max() < 16


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    first, second = box(16, 16, 0, 0, 8, 16).convert("RGB"), box(16, 16, 8, 0, 16, 16).convert("RGB")
    how = {"lossless": True} if kind == "WEBP" else {}
    found = decode(saved(first, kind, save_all=True, append_images=[second], duration=50, **how))
    assert np.array_equal(np.asarray(found), np.asarray(first.convert("L")))


def test_sixteen_bits_of_grey() -> None:
    deep = Image.fromarray(np.array([[0, 257, 257 * 128, 65535]], dtype=np.uint16))
    assert np.asarray(decode(saved(deep, "PNG"))).tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (32, 24)])
def test_the_slow_part_is_where_the_mask_is(size: tuple[int, int]) -> None:
    """A mask of another size than the picture is stretched."""
    mask = box(400, 200, 100, 50, 200, 150)  # the second quarter across, the middle half down
    found = slow_fraction(mask, size)
    assert found.shape == (1, 1, *size) and found.dtype == torch.float64
    height, width = size
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    # How far inside, in latent pixels, negative outside.
    down = torch.minimum(rows - 0.25, 0.75 - rows).view(-1, 1) * height
    across = torch.minimum(columns - 0.25, 0.5 - columns).view(1, -1) * width
    inside = torch.minimum(down, across)
    assert found[0, 0][inside > 1].unique().tolist() == [1]
    assert found[0, 0][inside < -1].unique().tolist() == [0]
    assert float(found.mean()) == pytest.approx(0.125, abs=0.02)
    assert torch.allclose(slow_fraction(mask, size, invert=True), 1 - found)


def test_grey_is_in_between_and_thin_lines_are_not_lost() -> None:
    assert slow_fraction(picture(np.full((8, 8), 51)), (4, 4)).unique().tolist() == pytest.approx([0.2])
    line = slow_fraction(box(512, 512, 100, 0, 101, 512), (64, 64))
    assert line[0, 0, :, 12].unique().tolist() == pytest.approx([1 / 8])
    assert int((line > 0).sum()) == 64


def test_a_small_mask_is_enlarged() -> None:
    found = slow_fraction(picture([[0, 255]]), (6, 8))
    assert found[0, 0, :, :4].unique().tolist() == [0] and found[0, 0, :, 4:].unique().tolist() == [1]


def test_a_mask_that_leaves_nothing_slow_is_refused() -> None:
    with pytest.raises(ValueError, match="black everywhere"):
        slow_fraction(box(8, 8, 0, 0, 0, 0), (4, 4))
    with pytest.raises(ValueError, match="white everywhere"):
        slow_fraction(box(8, 8, 0, 0, 8, 8), (4, 4), invert=True)
    assert slow_fraction(box(8, 8, 0, 0, 8, 8), (4, 4)).unique().tolist() == [1]
