"""Forge (lllyasviel's main) as a :class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import shared

from asyndm_ext.hosts.forge.denoiser import PixelDenoiser
from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.solvers import Solver

# One of them for SD1 and SD2, the others for models with several encoders; CLIP's token positions are equal in all.
ENGINES = ("text_processing_engine", "text_processing_engine_l")


class Forge:
    def pass_model(
        self, denoiser: Any, arguments: Mapping[str, Any], solver: Solver, images: int, objects: ObjectColumns | None
    ) -> PixelDenoiser:
        # Not the solver's guidance: Forge sets CFG++'s multiplier of the CFG scale, but never reads it.
        extra_args = arguments["extra_args"] or {}
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, solver.uncond)

    def text_encoder(self) -> Any:
        for name in ENGINES:
            engine = getattr(shared.sd_model, name, None)
            if engine is not None:
                return engine
        raise AsynDMError(f"AsynDM does not know the text encoder of {type(shared.sd_model).__name__}")
