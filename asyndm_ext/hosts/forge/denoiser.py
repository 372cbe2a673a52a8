"""Forge's CFG denoiser, and its relatives', with a level per pixel.

Here the map is known in the function around the network's call, which :mod:`~asyndm_ext.hosts.forge.patcher` puts there
while sampling runs. What differs from relative to relative is in :mod:`~asyndm_ext.hosts.forge.relatives`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.hosts.forge.patcher import ALWAYS_UNCOND, ROWS, changes_calls, patched
from asyndm_ext.hosts.forge.relatives import check_calls, prediction_of, predictor_of, takes_model_options
from asyndm_ext.hosts.webui.compare import Compared, refuse_several_prompts
from asyndm_ext.hosts.webui.denoiser import LAST_UNCOND, PassDenoiser
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.neighbours import others_listen
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, v_denoised
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.rivals.guidance import Part

RESCALED = {"epsilon": eps_denoised, "v_prediction": v_denoised, "const": flow_denoised}
"""By the kind of prediction."""


def support(sd_model: Any, objects: int = 0, images: int = 1) -> NetworkHooks:
    """The hooks that the loaded model takes.

    Raises:
        UnsupportedModel: it is of a kind that is not supported.
    """
    check_calls(sd_model)
    model = sd_model.forge_objects.unet.model
    predictor = predictor_of(model)
    if prediction_of(predictor) is None:
        raise UnsupportedModel(f"{type(sd_model).__name__} predicts something else ({type(predictor).__name__})")
    return NetworkHooks(model.diffusion_model, objects, images)


class PixelDenoiser(PassDenoiser):
    """The guided model of a job.

    Timestep samplers work in VP space and take eps. Forge turns their latent into VE space by its scalar, computes
    there, and turns the answer back; while this is attached, that is done here, pixel by pixel.

    Args:
        denoiser, extra_args, space, images, objects: as of :class:`PassDenoiser`.
        uncond: keep each call's answer without the prompt.
        compared: another method that guides, too, or None.
        effect: tell, in place of the attention, where the prompt makes a difference.
    """

    def __init__(
        self,
        denoiser: Any,
        extra_args: Mapping[str, Any],
        space: Literal["sigma", "timestep"],
        images: int,
        objects: ObjectColumns | None,
        uncond: bool = False,
        effect: bool = False,
        compared: Compared | None = None,
    ) -> None:
        switches = {"classic_ddim_eps_estimation": False, "need_last_noise_uncond": uncond and space == "timestep"}
        super().__init__(denoiser, extra_args, space, images, objects, switches, effect, compared)
        self._after_guidance = compared is not None or (uncond and space == "sigma")
        if self._after_guidance and takes_model_options(denoiser):
            self._more_args = {"model_options": {ALWAYS_UNCOND: True}}
        self._others = False
        self._read: set[tuple[int, int]] = set()
        self._seen: Tensor | None = None
        self.last_uncond: Tensor | None = None

    # -- the model

    def _model_of(self, inner_model: Any) -> Any:
        return inner_model.inner_model

    def _network_of(self, model: Any) -> NetworkHooks:
        hooks = support(model, self._objects.count if self._objects is not None else 0, self._images)
        self._predictor = predictor_of(model.forge_objects.unet.model)
        self._prediction = prediction_of(self._predictor) or ""
        return hooks

    def _noise_of(self, model: Any) -> NoiseTable | None:
        if self._space == "sigma":
            return None
        alphas = model.alphas_cumprod.cpu()
        self._sigmas = ((1 - alphas) / alphas) ** 0.5
        return NoiseTable.from_alphas_cumprod(alphas)

    def _additions(self, model: Any) -> AbstractContextManager[Any]:
        self._others = changes_calls(model.forge_objects.unet.model_options)
        return patched(model, self, self._after_guidance)

    def _look(self) -> bool:
        return self._others or others_listen()

    def _timestep(self) -> Callable[[Tensor], Tensor]:
        assert self._network is not None
        return partial(_timestep, None if self._network.by_sigma else self._predictor)

    # -- the guided call, seen from the solver

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        """Denoised (noise-level samplers) or eps (timestep samplers); see :class:`asyndm_ext.run.Model`."""
        if self._space == "sigma":
            return self._guided(x, nominal, level)[0]
        sigma = self._sigma_of(level)
        scale = sigma.to(x.device)
        x_ve = x * (scale**2.0 + 1.0) ** 0.5
        nominal_sigma = float(self._sigma_of(torch.tensor(nominal)))
        denoised, scalar = self._guided(x_ve, nominal_sigma, sigma)
        unguided = getattr(self._denoiser, LAST_UNCOND, None)
        if unguided is not None:
            self.last_uncond = unguided * (nominal_sigma / scale)
        # The host divides by its very scalar, which other extensions may have changed in its place.
        changed = (scalar / torch.full_like(scalar, nominal_sigma)).view(-1, 1, 1, 1)
        scale = scale * torch.where(changed.isfinite() & (changed > 0), changed, 1.0)
        if getattr(self._denoiser, "mask", None) is not None:
            assert self._seen is not None
            x_ve = self._seen
        return (x_ve - denoised) / scale

    def _sigma_of(self, level: Tensor) -> Tensor:
        """A timestep sampler's sigmas, float32 on the CPU, any shape."""
        return self._sigmas[level.round().long().clip(0, len(self._sigmas) - 1)]

    def _begins(self, x: Tensor) -> None:
        self._read.clear()

    def _adjusted(self, level: Tensor, nominal: float) -> Tensor:
        """When inpainting, the host puts the original picture, noised to its scalar sigma, where it is to be kept."""
        kept = getattr(self._denoiser, "mask", None)
        if kept is None:
            return level
        kept = torch.as_tensor(kept).double().cpu()
        kept = (kept.squeeze(2) if kept.ndim == 5 else kept).amax(dim=-3, keepdim=True)
        return torch.lerp(level.double(), torch.full_like(level, nominal).double(), kept.expand_as(level))

    # -- one call of the network, seen from the host (see patcher.Interceptor)

    def starts(self, x: Tensor) -> None:
        self._seen = x

    def guided(self, guided: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        if self._space == "sigma":
            self.last_uncond = uncond
        return guided if self._compared is None else self._led(guided, cond, uncond, is_noise=False)

    def network_call(self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        with self._nothing_lost():
            if ROWS not in c:
                raise NotApplied("another extension calls the model in a way that hides which image is which")
        marks = c.pop(ROWS).tolist()
        token_rows = [self._token_row(*mark) for mark in marks]
        sides: list[Part] = ["uncond" if condition < 0 else "cond" for _, condition in marks]
        if self._compared is not None and any(condition > 0 for _, condition in marks):
            with self._nothing_lost():
                refuse_several_prompts()
        prompted = [self._prompted(*mark) for mark in marks] if self._effect is not None else []
        images = [image for image, _ in marks]
        return self._network_call(partial(apply_model, **c), x, sigma, images, token_rows, prompted, sides)

    def _prompted(self, image: int, condition: int) -> bool | None:
        """Whether a row has the prompt; None the second time, which is another extension's call."""
        if (image, condition) in self._read:
            return None
        self._read.add((image, condition))
        return condition >= 0

    def _token_row(self, image: int, condition: int) -> TokenRow | None:
        """What to read from a row: nothing from the negative prompt, nor a second time in another extension's call."""
        if self._objects is None or condition < 0 or (image, condition) in self._read:
            return None
        self._read.add((image, condition))
        return TokenRow(image, self._texts[image][condition])

    def _pixel_call(self, call: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, levels: Tensor) -> Tensor:
        s, m = self._beside(x, sigma, levels)

        def denoise(x_in: Tensor) -> Tensor:
            return call(x_in.to(x.dtype), sigma).to(s)

        rescaled = RESCALED[self._prediction]
        return rescaled(denoise, x.to(s), s, m).to(x.dtype)

    def control_input(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """A control net takes the latent at unit variance, and its scalar timestep."""
        levels = self._levels
        if levels is None or levels.uniform is not None or self._prediction == "const":
            return x
        images = rows[:, 0].tolist()
        sigma, factors = self.neighbours.change(sigma, levels.nominal, len(images), self._look())
        s, m = self._beside(x, sigma, levels.of(images, factors))
        return x * ((s**2 + 1) / (m**2 + 1)).sqrt().to(x.dtype)


def _timestep(predictor: Any | None, sigma: Tensor) -> Tensor:
    """What the network is told for each sigma, any shape: without a predictor the sigma itself in thousandths.

    The host looks others up in a table, which it compares with every one: so only the distinct ones.
    """
    if predictor is None:
        return 1000 * sigma
    distinct, where = sigma.unique(return_inverse=True)
    return predictor.timestep(distinct.float()).double().cpu()[where]
