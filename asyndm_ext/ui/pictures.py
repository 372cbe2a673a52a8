"""Pictures of what a pass did: the slow pixels over the image, the pixels' clocks, and both over the steps.

Noise levels are shown as what is left of the host's own schedule, so sigmas, timesteps and flows look alike.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asyndm_ext.picture import strip
from asyndm_ext.picture.drawing import (
    GREY,
    NOISIEST,
    PAPER,
    Sheet,
    clock_colours,
    enlarged,
    font,
    mask_picture,
    wrapped,
)
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import SHOWN, Settings

_CAPTION = 12  # letters, pixels
_SMALLEST, _LARGEST = 8, 30


def written(text: str, width: int, height: int) -> Image.Image:
    """A page of this size with a text on it, in letters as large as there is room for. Where there is none even for the
    smallest, its end is cut off."""
    margin = max(width // 20, 4)
    room = width - 2 * margin
    fitting = (size for size in range(_LARGEST, _SMALLEST, -1) if _fits(text, size, room, height - 2 * margin))
    sheet = Sheet.blank(width, height)
    sheet.paragraph(margin, margin, room, text, size=next(fitting, _SMALLEST))
    return sheet.image


def labelled(image: Image.Image, text: str) -> Image.Image:
    """The picture with a line or two across its lower edge."""
    size = max(min(image.width // 24, _CAPTION), _SMALLEST)
    lines = wrapped(text, image.width - 8, size)
    height = min(len(lines) * round(size * 1.35) + 6, image.height)
    label = Sheet.blank(image.width, height)
    label.paragraph(4, 3, image.width - 8, text, size=size)
    marked = image.convert("RGB")
    marked.info = dict(image.info)
    marked.paste(label.image, (0, image.height - height))
    return marked


def _fits(text: str, size: int, width: int, height: int) -> bool:
    lines = wrapped(text, width, size)
    return len(lines) * round(size * 1.35) <= height and max(map(font(size).getlength, lines), default=0) <= width


class Recorder:
    """Keeps of the steps of a pass what its pictures need."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kinds = SHOWN[1:-1] if settings.show == SHOWN[-1] else (settings.show,)
        self._nominals: list[float] = []
        self._levels: list[Tensor] = []
        self._strengths: list[Tensor] = []
        self._total: Tensor | None = None

    def watch(self, record: StepRecord) -> None:
        """Called at the end of each step."""
        self._nominals.append(record.nominal)
        self._total = record.strength.clone() if self._total is None else self._total + record.strength
        if self._kinds != ("mask",):
            self._levels.append(record.level.float())
        if "filmstrip" in self._kinds:
            self._strengths.append(record.strength.float())

    def pictures(self, image: Image.Image, index: int) -> list[tuple[str, Image.Image]]:
        """What is to be shown of one image of the batch, with its kind; nothing before the first step."""
        if self._total is None:
            return []
        draw = {"mask": self._mask, "clock": self._clock, "filmstrip": self._filmstrip}
        return [(kind, draw[kind](image.convert("RGB"), index)) for kind in self._kinds]

    # -- one of each

    def _mask(self, image: Image.Image, index: int) -> Image.Image:
        assert self._total is not None
        strength = self._total[index, 0] / len(self._nominals)
        picture = mask_picture(image, strength, self._settings.strongest, _factor(image, strength))
        slow = float((strength > 0).double().mean())
        return _captioned(picture, f"slow pixels, mean of {len(self._nominals)} steps: {slow:.0%} of the picture")

    def _clock(self, image: Image.Image, index: int) -> Image.Image:
        left = [self._left(level[index, 0]) for level in self._levels]
        lags = [float((pixels - self._left(host)).max()) for pixels, host in zip(left, self._hosts(), strict=True)]
        step = int(np.argmax(lags)) if max(lags) > 0 else len(lags) // 2
        picture = enlarged(clock_colours(left[step] * NOISIEST), _factor(image, left[step]))
        return _captioned(picture, f"clock at step {step + 1} of {len(lags)}: {_span(left[step])} of the steps left")

    def _filmstrip(self, image: Image.Image, index: int) -> Image.Image:
        settings, steps = self._settings, len(self._levels)
        strengths = [strength[index, 0] for strength in self._strengths]
        left = [self._left(level[index, 0]) for level in self._levels]
        heading = f"AsynDM at strength {settings.strongest:g}, {settings.curve}, region: {settings.region}"
        layout = strip.Layout.of(heading, (steps, *strengths[0].shape), rows=2)
        rows = (
            strip.Row(
                "Slow pixels",
                "Where pixels are held back at this step, over the finished picture.",
                lambda step: mask_picture(image, strengths[step], settings.strongest, layout.factor),
                lambda step: f"{float((strengths[step] > 0).double().mean()):.0%} of pixels",
                strip.legend_of_slow,
            ),
            strip.Row(
                "Clock",
                "How much of the schedule each pixel still has before it.",
                lambda step: enlarged(clock_colours(left[step] * NOISIEST), layout.factor),
                lambda step: _span(left[step]),
                strip.legend_of_clock("100% noise", "50%", "0% clean"),
            ),
        )
        return strip.draw(layout, heading, f"{steps} steps; the share of the steps that is left, per pixel", rows)

    # -- noise levels

    def _hosts(self) -> list[Tensor]:
        return [torch.tensor(nominal, dtype=torch.float32) for nominal in self._nominals]

    def _left(self, level: Tensor) -> Tensor:
        """How much of the host's schedule is left at a level, fractions, any shape: straight between its steps."""
        nodes = sorted({float(np.float32(nominal)) for nominal in self._nominals} | {0.0})
        shares = np.linspace(0, 1, len(nodes)) if len(nodes) > 1 else np.zeros(1)
        return torch.from_numpy(np.asarray(np.interp(level.double().numpy(), nodes, shares)))


def _span(left: Tensor) -> str:
    low, high = f"{float(left.min()):.0%}", f"{float(left.max()):.0%}"
    return low if low == high else f"{low} to {high}"


def _factor(image: Image.Image, cells: Tensor) -> int:
    return max(1, round(image.width / cells.shape[-1]))


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    lines = wrapped(text, picture.width - 12, _CAPTION)
    sheet = Sheet(Image.new("RGB", (picture.width, picture.height + 12 + round(len(lines) * _CAPTION * 1.35)), PAPER))
    sheet.image.paste(picture, (0, 0))
    sheet.paragraph(6, picture.height + 6, picture.width - 12, text, size=_CAPTION, colour=GREY)
    return sheet.image
