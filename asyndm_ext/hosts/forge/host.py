"""Forge (lllyasviel's main) as a :class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import shared

from asyndm_ext.hosts.forge.denoiser import PixelDenoiser, support
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.solvers import Solver

# One of them for SD1 and SD2, the others for models with several encoders; CLIP's token positions are equal in all.
ENGINES = ("text_processing_engine", "text_processing_engine_l")


class Forge:
    def pass_model(
        self, denoiser: Any, arguments: Mapping[str, Any], solver: Solver, images: int, objects: ObjectColumns | None
    ) -> PixelDenoiser:
        _check()
        # Not the solver's guidance: Forge sets CFG++'s multiplier of the CFG scale, but never reads it.
        extra_args = arguments["extra_args"] or {}
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, solver.uncond)

    def text_encoder(self) -> Any:
        _check()
        for name in ENGINES:
            engine = getattr(shared.sd_model, name, None)
            if engine is not None:
                return engine
        raise AsynDMError(f"AsynDM does not know the text encoder of {type(shared.sd_model).__name__}")


def _check() -> None:
    """Raises NotApplied: the loaded model, or what another extension makes of its calls, cannot be told levels."""
    try:
        support(shared.sd_model)
    except UnsupportedModel as error:
        raise NotApplied(f"models of this kind are not supported: {error}") from error
    if "tiled_diffusion" in shared.sd_model.forge_objects.unet.model_options:
        raise NotApplied("MultiDiffusion draws the picture in tiles, which have no place in a map of the whole")
