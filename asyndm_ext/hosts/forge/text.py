"""Where the words of a prompt are in the conditioning of a model that Forge, or a relative of it, has loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import shared

from asyndm_ext.hosts.forge.language_models import finder_of_language_model
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.finders import (
    Finder,
    JoinedFinder,
    PieceFinder,
    TokenFinder,
    clip_encoder,
    tells_lines,
    tells_pieces,
)
from asyndm_ext.model.transformers.chroma import is_chroma
from asyndm_ext.model.transformers.flux import is_flux

# SD1 and SD2 have one, SDXL two with equal token positions, SD3 these two before T5's tokens.
CLIP_ENGINES = ("text_processing_engine", "text_processing_engine_l")
# All that Flux and Chroma read (the text that Flux gives CLIP is only summed up), and SD3 after CLIP's, if it is on.
T5_ENGINE = "text_processing_engine_t5"


def finder_of(sd_model: Any, first: Callable[[], tuple[str, int] | None] = lambda: None) -> Finder:
    """``first``: see :func:`.language_models.finder_of_language_model`.

    Raises:
        NotApplied: the model's text encoder is not known.
    """
    network = sd_model.forge_objects.unet.model.diffusion_model
    t5 = getattr(sd_model, T5_ENGINE, None)
    if t5 is not None and (is_flux(network) or is_chroma(network)):
        return PieceFinder(_known(t5, tells_pieces, sd_model))
    engines = (getattr(sd_model, name, None) for name in CLIP_ENGINES)
    clip = next((one for one in engines if one is not None), None)
    if clip is None:
        language_model = finder_of_language_model(sd_model, first)
        if language_model is not None:
            return language_model
        # Without engines of its own: what AUTOMATIC1111 has.
        clip = clip_encoder(getattr(sd_model, "cond_stage_model", None))
    finder = TokenFinder(_known(clip, tells_lines, sd_model))
    # Turned off, T5's part of SD3's conditioning is 0.
    if t5 is not None and getattr(shared.opts, "sd3_enable_t5", True):
        return JoinedFinder(finder, PieceFinder(_known(t5, tells_pieces, sd_model)), cut=False)
    return finder


def _known(encoder: Any, is_known: Callable[[Any], bool], sd_model: Any) -> Any:
    if not is_known(encoder):
        raise NotApplied(f"the text encoder of {type(sd_model).__name__} is not known")
    return encoder
