"""Diffusion transformers: which one a network is, told by its structure, and what AsynDM has to know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyndm_ext.model.transformers import anima, chroma, flux, mmdit, nextdit, qwen_image
from asyndm_ext.model.transformers.layout import Layout
from asyndm_ext.model.unet_time import UnsupportedModel

KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Layout]], ...] = (
    (mmdit.is_mmdit, mmdit.layout),
    (chroma.is_chroma, chroma.layout),
    (flux.is_flux, flux.layout),
    (flux.is_flux2, flux.flux2_layout),
    (nextdit.is_nextdit, nextdit.layout),
    (qwen_image.is_qwen_image, qwen_image.layout),
    (anima.is_anima, anima.layout),
)
"""What tells a kind of network, and what makes the layout of one."""


def layout_of(network: Any) -> Layout | None:
    """The layout of a diffusion transformer, None where it is none that AsynDM knows.

    Raises:
        UnsupportedModel: a variant of a known one that is modulated otherwise, or lacks what the known one has (a
            host's own class of it).
    """
    layout = next((layout for is_kind, layout in KINDS if is_kind(network)), None)
    try:
        return layout(network) if layout is not None else None
    except (AttributeError, IndexError) as error:
        raise UnsupportedModel(f"{type(network).__name__} is another one than it seems ({error})") from error
