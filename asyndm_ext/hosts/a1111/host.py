"""AUTOMATIC1111 1.10 as a :class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import sd_models, shared
from modules.models.sd3.sd3_model import SD3Inferencer

from asyndm_ext.hosts.a1111.denoiser import PixelDenoiser
from asyndm_ext.hosts.webui.compare import Compared
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.finders import (
    Finder,
    JoinedFinder,
    PieceFinder,
    TokenFinder,
    clip_encoder,
    finder_for,
)
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.model.network import time_conditioning
from asyndm_ext.solvers import FLOW, SOLVERS, Solver


class A1111:
    name = "AUTOMATIC1111"
    models: tuple[str, ...] = ("SD 1.x", "SD 2.x", "SDXL", "SD3")

    def model(self, load: bool = False) -> Any | None:
        return shared.sd_model if load else sd_models.model_data.sd_model

    def check(self, model: Any) -> None:
        time_conditioning(model.model.diffusion_model)

    def excludes(self, solver: Solver) -> str | None:
        on_sd3 = isinstance(self.model(), SD3Inferencer)
        wrong = solver.space == "timestep" or solver is SOLVERS["LCM"] or solver is FLOW["sample_lcm"]
        return "it goes wrong with SD3 in the WebUI itself" if on_sd3 and wrong else None

    def percent_to_sigma(self) -> None:
        return None  # no sampler of its asks

    def is_flow(self) -> bool:
        return isinstance(shared.sd_model, SD3Inferencer)

    def pass_model(
        self,
        denoiser: Any,
        arguments: Mapping[str, Any],
        solver: Solver,
        images: int,
        objects: ObjectColumns | None,
        effect: bool = False,
        compared: Compared | None = None,
    ) -> PixelDenoiser:
        extra_args = arguments["extra_args"] or {}
        guidance, uncond = solver.guidance, solver.uncond
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, guidance, uncond, effect, compared)

    def finder(self, p: Any | None = None) -> Finder:
        conditioner = shared.sd_model.cond_stage_model
        encoder = clip_encoder(conditioner)
        if encoder is None:
            raise NotApplied(f"the text encoder {type(conditioner).__name__} is not known")
        finder = finder_for(encoder)
        t5 = getattr(conditioner, "model_t5", None)
        # Otherwise T5's part of the conditioning is 0: it is loaded with the model or not at all.
        if isinstance(finder, TokenFinder) and getattr(t5, "t5xxl", None) and shared.opts.sd3_enable_t5:
            return JoinedFinder(finder, PieceFinder(t5), cut=True)
        return finder
