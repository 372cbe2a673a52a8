"""Forge (lllyasviel's main) and its relatives (Forge Neo, Forge Classic, reForge) as a
:class:`~asyndm_ext.hosts.webui.host.Host`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modules import shared

from asyndm_ext.hosts.forge.denoiser import PixelDenoiser, support
from asyndm_ext.hosts.forge.relatives import prediction_of, predictor_of, relative
from asyndm_ext.hosts.forge.text import finder_of
from asyndm_ext.hosts.webui.compare import Compared
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.finders import Finder
from asyndm_ext.hosts.webui.tokens import ObjectColumns, first_row
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.solvers import Solver

UNIPC_TIMESTEPS = 1000


class Forge:
    def __init__(self) -> None:
        found = relative()
        self.name = found.name
        self.models = found.models

    def model(self, load: bool = False) -> Any | None:
        # Forge loads in a job only; before the first it has a placeholder.
        return shared.sd_model if getattr(shared.sd_model, "forge_objects", None) is not None else None

    def check(self, model: Any) -> None:
        support(model)

    def excludes(self, solver: Solver) -> str | None:
        wrong = self.model() is not None and self._mistakes_the_flow(solver)
        return "it takes Flux's timesteps for others than they are" if wrong else None

    def is_flow(self) -> bool:
        predictor = self._predictor()
        return predictor is not None and prediction_of(predictor) == "const"

    def percent_to_sigma(self) -> Callable[[float], float] | None:
        return getattr(self._predictor(), "percent_to_sigma", None)

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
        _check()
        if self._mistakes_the_flow(solver):
            raise NotApplied("UniPC takes Flux's timesteps for others than they are")
        # Not the solver's guidance: Forge sets CFG++'s multiplier of the CFG scale, but never reads it.
        extra_args = arguments["extra_args"] or {}
        return PixelDenoiser(denoiser, extra_args, solver.space, images, objects, solver.uncond, effect, compared)

    def finder(self, p: Any | None = None) -> Finder:
        _check()
        return finder_of(shared.sd_model, lambda: first_row(p))

    def _predictor(self) -> Any | None:
        try:
            return predictor_of(shared.sd_model.forge_objects.unet.model)
        except UnsupportedModel:
            return None

    def _mistakes_the_flow(self, solver: Solver) -> bool:
        """UniPC goes by a thousand timesteps; Flux, other than SD3, has as many as it likes."""
        if solver.own_schedule is None or solver.space != "timestep" or not self.is_flow():
            return False
        return len(getattr(self._predictor(), "sigmas", ())) != UNIPC_TIMESTEPS


def _check() -> None:
    """Raises NotApplied: the loaded model, or what another extension makes of its calls, cannot be told levels."""
    try:
        support(shared.sd_model)
    except UnsupportedModel as error:
        raise NotApplied(f"models of this kind are not supported: {error}") from error
    if "tiled_diffusion" in shared.sd_model.forge_objects.unet.model_options:
        raise NotApplied("MultiDiffusion draws the picture in tiles, which have no place in a map of the whole")
