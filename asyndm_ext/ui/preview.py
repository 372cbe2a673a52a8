"""The slow pixels over a live preview, in the colour of the pictures beside the results."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from asyndm_ext.picture.drawing import SLOW

TINT = 0.4
"""How much of the colour covers the preview. Less than beside the results: here the picture itself is watched."""
# Of a preview's sides, by which they may differ from the latent's: sides are rounded to whole pixels.
_ROUNDING = 0.02


def over_preview(preview: Image.Image, strength: Tensor, full: float, grid: tuple[int, int] = (1, 1)) -> Image.Image:
    """The preview in its own colours and size, slow pixels tinted by how slow they are.

    What has not the latent's proportions (a picture that another extension shows) comes back as it is.

    Args:
        preview: of the batch's images from the first on, side by side.
        strength: ``(B,1,H,W)``, fractions.
        full: the strength of the deepest tint, > 0.
        grid: columns and rows that the preview has.
    """
    columns, rows = grid
    images, _, height, width = strength.shape
    wide, high = preview.width * rows * height, preview.height * columns * width
    if abs(wide - high) > _ROUNDING * high:
        return preview
    tint = torch.zeros(rows * height, columns * width)
    for image in range(min(images, columns * rows)):
        top, left = image // columns * height, image % columns * width
        tint[top : top + height, left : left + width] = strength[image, 0] / full
    opacity = Image.fromarray((tint * (255 * TINT)).round().byte().numpy())
    opacity = opacity.resize(preview.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", preview.size, SLOW), preview.convert("RGB"), opacity)
