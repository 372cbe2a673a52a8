"""Forge as far as a denoiser of its needs it: stand-ins for its modules, and a job with a network whose answer for a
pixel depends on that pixel alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from support.a1111 import PixelNetwork, inside

SIGMAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)


class Condition:
    """A tensor that is joined with its like."""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond


class Predictor:
    """eps or v, of discrete timesteps."""

    def __init__(self, prediction_type: str) -> None:
        self.prediction_type = prediction_type
        alphas = torch.cumprod(1 - SIGMAS**2, dim=0)
        self.sigmas = (((1 - alphas) / alphas) ** 0.5).float()

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        sigma = sigma.view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        return x - output * sigma

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(dim=0).view(sigma.shape)


class Model:
    """What the patcher holds."""

    def __init__(self, prediction_type: str) -> None:
        torch.manual_seed(2)
        self.diffusion_model = PixelNetwork().requires_grad_(False)
        self.predictor = Predictor(prediction_type)

    def apply_model(self, x: Tensor, t: Tensor, c_crossattn: Tensor) -> Tensor:
        predictor = self.predictor
        answer = self.diffusion_model(predictor.calculate_input(t, x), predictor.timestep(t).float(), c_crossattn)
        return predictor.calculate_denoised(t, answer, x)


class Checkpoint:
    """The host's loaded model."""

    def __init__(self, prediction_type: str) -> None:
        model = Model(prediction_type)
        self.forge_objects = SimpleNamespace(unet=SimpleNamespace(model=model, model_options={}))
        self.alphas_cumprod = 1 / (model.predictor.sigmas**2 + 1)


class Denoiser:
    """The host's CFG denoiser: the negative prompt's rows first, and what others do to them on the way.

    Args:
        edits: called with an object that has ``x`` and ``sigma``.
        timesteps: the sampler works with timesteps, in the variance-preserving space, and wants eps.
    """

    mask = None

    def __init__(self, checkpoint: Checkpoint, edits: list[Callable[[Any], None]], timesteps: bool) -> None:
        self.checkpoint, self.edits = checkpoint, edits
        self.step = 0
        self.classic_ddim_eps_estimation, self.need_last_noise_uncond = timesteps, False
        self.last_noise_uncond = None

    @property
    def inner_model(self) -> Any:
        return SimpleNamespace(inner_model=self.checkpoint)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        return self.forward(x, sigma, cond, uncond)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        objects = self.inner_model.inner_model.forge_objects
        if self.classic_ddim_eps_estimation:
            sigma = objects.unet.model.predictor.sigmas[sigma.round().long()]
            x = x * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5
        params = SimpleNamespace(x=x, sigma=sigma)
        for edit in self.edits:
            edit(params)
        denoised = self.guided(objects.unet, params, cond, uncond)
        self.step += 1
        return (x - denoised) / sigma.view(-1, 1, 1, 1) if self.classic_ddim_eps_estimation else denoised

    def guided(self, unet: Any, params: Any, cond: Tensor, uncond: Tensor) -> Tensor:
        texts = [[{"model_conds": {"c_crossattn": Condition(text)}}] for text in (uncond, cond)]
        arguments = (unet.model, params.x, params.sigma, *texts, 3.0, unet.model_options, 0)
        for modifier in unet.model_options.get("conditioning_modifiers", []):
            arguments = modifier(*arguments)
        _, x, sigma, no, yes, *_ = arguments
        parts = [entry["model_conds"] for entry in (*no, *yes)]
        c = {name: torch.cat([part[name].cond for part in parts]) for name in parts[0]}
        wrapper = unet.model_options.get("model_function_wrapper")
        x, sigma = torch.cat([x, x]), torch.cat([sigma, sigma])
        if wrapper is None:
            answer = unet.model.apply_model(x, sigma, **c)
        else:
            answer = wrapper(unet.model.apply_model, {"input": x, "timestep": sigma, "c": c, "cond_or_uncond": [1, 0]})
        without, prompted = answer.chunk(2)
        denoised = without + 3 * (prompted - without)
        for after in unet.model_options.get("sampler_post_cfg_function", []):
            denoised = after({"denoised": denoised, "cond_denoised": prompted, "uncond_denoised": without})
        return denoised


def host() -> AbstractContextManager[Any]:
    """Within this block AsynDM's module for the host's denoisers is there, as it would be inside the host."""
    stand_ins = {
        "backend": {},
        "backend.sampling": {},
        "backend.sampling.condition": {"Condition": Condition},
        "modules": {},
        "modules.sd_samplers": {},
        "modules.prompt_parser": {},
        "modules.shared": {"opts": SimpleNamespace()},
        "modules.script_callbacks": {"callback_map": {"callbacks_cfg_denoiser": [object()]}},
    }
    return inside(stand_ins, "asyndm_ext.hosts.forge.denoiser")
