"""How clocks, slow pixels and pages of them are drawn, with PIL alone.

Cells of maps are enlarged by whole factors without smoothing, so a latent pixel is a square and its colour is exact.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

PAPER, INK, GREY, LINE = (250, 250, 247), (32, 34, 38), (112, 116, 122), (214, 214, 208)
SLOW, ON_TIME = (240, 120, 20), (96, 110, 130)
# Noise level 0 to 999 on the clock: light where the picture is clear, dark where it is noise.
CLOCK_COLOURS = ((253, 245, 205), (252, 200, 110), (240, 125, 70), (190, 55, 105), (105, 25, 110), (25, 15, 60))
NOISIEST = 999
MARGIN, GAP = 28, 10
_TITLE = 25  # letters, pixels
_TINT = 0.65


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font at a size: PIL's own, or where PIL is too old to have one that of matplotlib, which comes with gradio."""
    try:
        return ImageFont.load_default(size=size)
    except (ImportError, TypeError):
        return _font_of_matplotlib(size)


@functools.cache
def _font_of_matplotlib(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def to_picture(image: Tensor) -> Image.Image:
    """``(3,H,W)`` in [0, 1] to RGB."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def clock_colours(timestep: Tensor) -> NDArray[np.uint8]:
    """Noise levels, any shape, to colours ``(...,3)``."""
    stops = np.array(CLOCK_COLOURS, dtype=np.float64)
    at = timestep.numpy() / NOISIEST * (len(stops) - 1)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def enlarged(cells: NDArray[np.uint8], factor: int) -> Image.Image:
    """``(h,w,3)`` with every cell as a square of ``factor`` pixels."""
    return Image.fromarray(cells.repeat(factor, axis=0).repeat(factor, axis=1))


def mask_picture(prediction: Image.Image, strength: Tensor, full: float, factor: int) -> Image.Image:
    """The prediction in pale grey, slow pixels ``(h,w)`` tinted by how slow they are; ``full`` is the deepest tint."""
    size = (strength.shape[1] * factor, strength.shape[0] * factor)
    pale = np.asarray(prediction.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    pale = (127 + pale / 2)[..., None]
    tint = (strength / full if full > 0 else torch.zeros_like(strength)).numpy() * _TINT
    tint = tint.repeat(factor, axis=0).repeat(factor, axis=1)[..., None]
    return Image.fromarray((pale * (1 - tint) + np.array(SLOW) * tint).round().astype(np.uint8))


@dataclass
class Sheet:
    """A page to write on."""

    image: Image.Image

    @classmethod
    def blank(cls, width: int, height: int) -> Sheet:
        return cls(Image.new("RGB", (width, height), PAPER))

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def framed(self, picture: Image.Image, x: int, y: int) -> None:
        """A picture with a hairline around it, so that a white one has an edge."""
        self.draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=LINE)
        self.image.paste(picture, (x, y))

    def text(
        self, x: int, y: int, text: str, *, size: int, colour: tuple[int, int, int] = INK, anchor: str = "la"
    ) -> None:
        self.draw.text((x, y), text, fill=colour, font=font(size), anchor=anchor)

    def heading(self, title: str, details: str) -> None:
        """The title in large letters and what goes for the whole page below it."""
        below = self.paragraph(MARGIN, MARGIN, self.image.width - 2 * MARGIN, title, size=_TITLE)
        self.text(MARGIN, below + 4, details, size=15, colour=GREY)

    def paragraph(self, x: int, y: int, width: int, text: str, *, size: int, colour: tuple[int, int, int] = INK) -> int:
        """Text broken into lines of at most ``width``; returns the y below it."""
        for line in wrapped(text, width, size):
            self.text(x, y, line, size=size, colour=colour)
            y += round(size * 1.35)
        return y


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The lines of a text that is to fit into ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def heading_height(title: str, page_width: int) -> int:
    """Where the content below :meth:`Sheet.heading` may begin."""
    return MARGIN + round(_TITLE * 1.35) * len(wrapped(title, page_width - 2 * MARGIN, _TITLE)) + 44
