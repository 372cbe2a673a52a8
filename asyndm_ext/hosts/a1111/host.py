"""AUTOMATIC1111 1.10 as a :class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import shared
from modules.models.sd3.sd3_model import SD3Inferencer

from asyndm_ext.hosts.a1111.denoiser import PixelDenoiser
from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.solvers import Solver


class A1111:
    def is_flow(self) -> bool:
        return isinstance(shared.sd_model, SD3Inferencer)

    def pass_model(
        self, denoiser: Any, arguments: Mapping[str, Any], solver: Solver, images: int, objects: ObjectColumns | None
    ) -> PixelDenoiser:
        extra_args = arguments["extra_args"] or {}
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, solver.guidance, solver.uncond)

    def text_encoder(self) -> Any:
        """SD1 and SD2 have one, SDXL has several with equal token positions, SD3 two in one before T5's tokens."""
        conditioner = shared.sd_model.cond_stage_model
        for encoder in [conditioner, *getattr(conditioner, "embedders", []), getattr(conditioner, "model_lg", None)]:
            if hasattr(encoder, "tokenize_line") and hasattr(encoder, "tokenize"):
                return encoder
        raise AsynDMError(f"AsynDM does not know the text encoder {type(conditioner).__name__} of this model")
