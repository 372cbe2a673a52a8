"""Forge (lllyasviel's main) as a :class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.modules.k_prediction import PredictionFlux
from modules import shared

from asyndm_ext.hosts.forge.denoiser import PixelDenoiser, support
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.finders import Finder, JoinedFinder, PieceFinder, TokenFinder
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.model.transformers.chroma import is_chroma
from asyndm_ext.model.transformers.flux import is_flux
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.solvers import Solver

# SD1 and SD2 have one, SDXL two with equal token positions, SD3 these two before T5's tokens.
CLIP_ENGINES = ("text_processing_engine", "text_processing_engine_l")
# All that Flux and Chroma read (the text that Flux gives CLIP is only summed up), and SD3 after CLIP's, if it is on.
T5_ENGINE = "text_processing_engine_t5"


class Forge:
    name = "Forge"
    models: tuple[str, ...] = ("SD 1.x", "SD 2.x", "SDXL", "SD3", "Flux", "Chroma")

    def model(self, load: bool = False) -> Any | None:
        # Forge loads in a job only; before the first it has a placeholder.
        return shared.sd_model if getattr(shared.sd_model, "forge_objects", None) is not None else None

    def check(self, model: Any) -> None:
        support(model)

    def excludes(self, solver: Solver) -> str | None:
        wrong = self.model() is not None and _is_unipc_on_flux(solver)
        return "it takes Flux's timesteps for others than they are" if wrong else None

    def is_flow(self) -> bool:
        return shared.sd_model.forge_objects.unet.model.predictor.prediction_type == "const"

    def pass_model(
        self, denoiser: Any, arguments: Mapping[str, Any], solver: Solver, images: int, objects: ObjectColumns | None
    ) -> PixelDenoiser:
        _check()
        if _is_unipc_on_flux(solver):
            raise NotApplied("UniPC takes Flux's timesteps for others than they are")
        # Not the solver's guidance: Forge sets CFG++'s multiplier of the CFG scale, but never reads it.
        extra_args = arguments["extra_args"] or {}
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, solver.uncond)

    def finder(self) -> Finder:
        _check()
        model = shared.sd_model
        network = model.forge_objects.unet.model.diffusion_model
        t5 = getattr(model, T5_ENGINE, None)
        if t5 is not None and (is_flux(network) or is_chroma(network)):
            return PieceFinder(t5)
        for name in CLIP_ENGINES:
            clip = getattr(model, name, None)
            if clip is not None:
                # Turned off, T5's part of SD3's conditioning is 0.
                if t5 is not None and shared.opts.sd3_enable_t5:
                    return JoinedFinder(TokenFinder(clip), PieceFinder(t5), cut=False)
                return TokenFinder(clip)
        raise AsynDMError(f"AsynDM does not know the text encoder of {type(model).__name__}")


def _is_unipc_on_flux(solver: Solver) -> bool:
    predictor = shared.sd_model.forge_objects.unet.model.predictor
    return isinstance(predictor, PredictionFlux) and solver.own_schedule is not None and solver.space == "timestep"


def _check() -> None:
    """Raises NotApplied: the loaded model, or what another extension makes of its calls, cannot be told levels."""
    try:
        support(shared.sd_model)
    except UnsupportedModel as error:
        raise NotApplied(f"models of this kind are not supported: {error}") from error
    if "tiled_diffusion" in shared.sd_model.forge_objects.unet.model_options:
        raise NotApplied("MultiDiffusion draws the picture in tiles, which have no place in a map of the whole")
