"""The mask of a pass: the one given in the settings, or the inpaint mask with its blur, as the pass sees it.

The host keeps a mask that is rounded to whole latent pixels (unless Soft Inpainting is on), so the blurred one is made
again here, by the host's own steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.region import mask_image
from asyndm_ext.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image


def slow_fraction(p: Any, settings: Settings, size: tuple[int, int]) -> Tensor:
    """How slow the mask makes each latent pixel: ``(1,1,H,W)``, fractions.

    Args:
        p: the host's job.
        settings: of a region that has a mask.
        size: of the pass's latent, ``(H, W)``.

    Raises:
        AsynDMError: there is no mask, or it leaves nothing slow.
    """
    given = settings.mask
    mask = _as_the_picture(p, mask_image.decode(given)) if given else _inpaint_mask(p)
    if mask is None:
        raise AsynDMError(
            f"AsynDM: the region {settings.region!r} needs a mask; paint one in img2img's Inpaint tab, or give one in "
            "the field Mask"
        )
    try:
        return mask_image.slow_fraction(mask, size, settings.mask_invert)
    except ValueError as error:
        raise AsynDMError(f"AsynDM: {error}") from error


def _as_the_picture(p: Any, mask: Image) -> Image:
    """A mask of the whole picture, resized and cropped as the host does with the picture itself."""
    if getattr(p, "paste_to", None) is not None:
        x, y, width, height = p.paste_to
        return mask.resize(p.mask_for_overlay.size).crop((x, y, x + width, y + height))
    pictures = getattr(p, "init_images", None)
    return _resized(p, mask.resize(pictures[0].size)) if pictures else mask


def _resized(p: Any, mask: Image) -> Image:
    from modules import images

    # Mode 3 stretches the latent, which is what happens to a mask anyway.
    return images.resize_image(p.resize_mode, mask, p.width, p.height) if p.resize_mode != 3 else mask


def _inpaint_mask(p: Any) -> Image | None:
    """The inpaint mask of img2img, blurred, inverted and cropped as the host does it; None without one."""
    if getattr(p, "latent_mask", None) is not None:
        return p.latent_mask  # a script's own, for the latent as it is
    if getattr(p, "nmask", None) is None or getattr(p, "image_mask", None) is None:
        return None
    import cv2
    import numpy as np
    from modules.processing import create_binary_mask
    from PIL import Image, ImageOps

    mask = create_binary_mask(p.image_mask, round=p.mask_round)
    if p.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    pixels = np.array(mask.convert("L"))
    for sigma, vertical in ((p.mask_blur_x, False), (p.mask_blur_y, True)):
        if sigma > 0:
            length = 2 * int(2.5 * sigma + 0.5) + 1
            pixels = cv2.GaussianBlur(pixels, (1, length) if vertical else (length, 1), sigma)
    mask = Image.fromarray(pixels)
    if p.paste_to is not None:
        x, y, width, height = p.paste_to
        return mask.crop((x, y, x + width, y + height))
    return _resized(p, mask)
