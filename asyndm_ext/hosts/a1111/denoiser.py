"""A1111's CFG denoiser with a level per pixel.

Here the map is known in front of the innermost model wrapper, which the denoiser calls with slices of its batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import k_diffusion.external
import torch
from modules import sd_samplers_lcm, sd_samplers_timesteps, sd_unet
from modules.models.sd3.sd3_model import SD3Denoiser
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.hosts.webui.compare import Compared, refuse_several_prompts
from asyndm_ext.hosts.webui.denoiser import PassDenoiser
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.neighbours import others_listen
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, lcm_denoised, v_denoised, v_to_eps
from asyndm_ext.model.network import is_dit
from asyndm_ext.rivals.guidance import Part

RESCALED = (
    (k_diffusion.external.CompVisVDenoiser, v_denoised),
    (k_diffusion.external.CompVisDenoiser, eps_denoised),
    (SD3Denoiser, flow_denoised),
)


class InnerModel:
    """Stands in front of the host's innermost model wrapper; everything but the call goes through to it."""

    def __init__(self, host: Any, owner: Any) -> None:
        self._host = host
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return self._owner.inner_call(self._host, x, sigma, kwargs)


class PixelDenoiser(PassDenoiser):
    """The guided model of a job; arguments as of :class:`PassDenoiser`, and

    Args:
        guidance: what the CFG scale is multiplied by.
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
        guidance: float = 1.0,
        uncond: bool = False,
        effect: bool = False,
        compared: Compared | None = None,
    ) -> None:
        # The host's own switches (sic), which its CFG++ sets and never resets.
        switches = {"cond_scale_miltiplier": guidance, "need_last_noise_uncond": uncond}
        super().__init__(denoiser, extra_args, space, images, objects, switches, effect, compared)
        self._wrapped: InnerModel | None = None
        self._rows: list[int] = []
        self._conditional = 0
        self._read: list[int] = []
        self._cursor = 0

    # -- the model

    def _subclass(self, host_class: type) -> type:
        plain = super()._subclass(host_class)
        if self._compared is None:
            return plain
        owner = weakref.proxy(self)

        class ComparedDenoiser(plain):  # type: ignore[misc, valid-type]
            def combine_denoised(self, x_out: Tensor, conds_list: Any, uncond: Any, cond_scale: float) -> Tensor:
                guided = super().combine_denoised(x_out, conds_list, uncond, cond_scale)
                return owner.combined(guided, x_out, conds_list)

            def combine_denoised_for_edit_model(self, x_out: Tensor, cond_scale: float) -> Tensor:
                raise NotApplied("compare: pix2pix models are guided in two directions, and the method knows one")

        return ComparedDenoiser

    def combined(self, guided: Tensor, x_out: Tensor, conds_list: Sequence[Sequence[tuple[int, float]]]) -> Tensor:
        """What the host has made of its rows, and what another method adds to it."""
        with self._nothing_lost():
            if any(len(conds) > 1 for conds in conds_list):
                refuse_several_prompts()
        cond = x_out[[conds[0][0] for conds in conds_list]]
        return self._led(guided, cond, x_out[-len(conds_list) :], self._space == "timestep")

    def _model_of(self, inner_model: Any) -> Any:
        return inner_model

    def _handed_out(self, inner_model: Any) -> InnerModel:
        """The host makes a new inner model when the refiner takes over; the hooks move along with it."""
        if self._wrapped is None or inner_model is not self._bound:
            self._bind(inner_model)
            self._wrapped = InnerModel(inner_model, weakref.proxy(self))
        return self._wrapped

    def _network_of(self, model: Any) -> NetworkHooks:
        if getattr(sd_unet, "current_unet", None) is not None:
            raise NotApplied("it cannot work inside an external UNet (TensorRT, say); set SD Unet to None")
        kinds: Any
        if self._space == "sigma":
            kinds = (*(kind for kind, _ in RESCALED), sd_samplers_lcm.LCMCompVisDenoiser)
        else:
            kinds = (sd_samplers_timesteps.CompVisTimestepsDenoiser, sd_samplers_timesteps.CompVisTimestepsVDenoiser)
        if not isinstance(model, kinds):
            raise NotApplied(f"models of this kind are not supported: the sampler calls a {type(model).__name__}")
        network = getattr(getattr(model.inner_model, "model", None), "diffusion_model", None)
        if network is None:
            raise NotApplied(f"models of this kind are not supported: no network in {type(model.inner_model).__name__}")
        if is_dit(network) and not isinstance(model, SD3Denoiser):
            # The WebUI takes what SD3 answers for eps there, and LCM fails altogether.
            raise AsynDMError("AsynDM: this sampler does not go with SD3, also not without AsynDM; take Euler, say")
        return NetworkHooks(network, self._objects.count if self._objects else 0, self._images)

    def _noise_of(self, model: Any) -> NoiseTable:
        if self._space == "sigma":
            return NoiseTable(model.log_sigmas)
        return NoiseTable.from_alphas_cumprod(model.inner_model.alphas_cumprod)

    def _timestep(self) -> Callable[[Tensor], Tensor]:
        return partial(_timestep, self._bound, self._space, self.noise)

    # -- the guided call, seen from the solver

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        """Denoised (noise-level samplers) or eps (timestep samplers); see :class:`asyndm_ext.run.Model`."""
        return self._guided(x, nominal, level)[0]

    @property
    def last_uncond(self) -> Tensor | None:
        return self._denoiser.last_noise_uncond

    def _begins(self, x: Tensor) -> None:
        """The host's row order: each image's AND-conditions, image after image, then one uncond row per image."""
        self._cursor = 0
        conditions = [len(batch) for batch in self._extra_args["cond"].batch]
        cond_rows = [image for image, count in enumerate(conditions) for _ in range(count)]
        # Instruct-pix2pix models have a second set of uncond rows.
        self._rows = [*cond_rows, *range(self._images), *range(self._images)]
        self._conditional = len(cond_rows)
        self._read = [0] * self._images
        if self._images > 1 and others_listen():
            self.neighbours.remember_images(x)

    def _token_row(self, number: int, image: int) -> TokenRow | None:
        """What to read from the row of this number: an image's texts come in their order, whatever is between them."""
        if number >= self._conditional or self._read[image] >= len(self._texts[image]):
            return None
        self._read[image] += 1
        return TokenRow(image, self._texts[image][self._read[image] - 1])

    # -- one call of the network, seen from the host

    def inner_call(self, host: Any, x: Tensor, sigma: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """A slice of the batch, in order; slices beyond the plan are other extensions' own calls."""
        first, self._cursor = self._cursor, self._cursor + len(x)
        token_rows: list[TokenRow | None] = []
        prompted: list[bool | None] = [None] * len(x)
        if self._cursor <= len(self._rows):
            rows = self.neighbours.images_of(x, self._rows[first : self._cursor])
            token_rows = [self._token_row(first + row, image) for row, image in enumerate(rows)]
            prompted = [self._prompted(first + row) for row in range(len(rows))]
            sides: list[Part] = ["cond" if one else "uncond" for one in prompted]
        else:
            rows, sides = [row % self._images for row in range(len(x))], []
        return self._network_call(partial(host, **kwargs), x, sigma, rows, token_rows, prompted, sides)

    def _prompted(self, number: int) -> bool | None:
        """Whether the row of this number has the prompt; None of those without prompt and picture that are another
        kind of guidance."""
        if number < self._conditional:
            return True
        return False if number < self._conditional + self._images else None

    def _pixel_call(self, call: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, levels: Tensor) -> Tensor:
        host = self._bound
        s, level = self._beside(x, sigma, levels)
        if self._space == "timestep":
            answer = call(x, sigma)
            if isinstance(host, sd_samplers_timesteps.CompVisTimestepsVDenoiser):
                alpha_s, alpha_m = self._alpha(sigma.cpu()).view(-1, 1, 1, 1), self._alpha(levels)
                answer = v_to_eps(answer.to(level), x, alpha_s.to(level), alpha_m.to(level))
            return answer.to(x.dtype)

        def denoise(x_in: Tensor) -> Tensor:
            return call(x_in.to(x.dtype), sigma).to(level)

        if isinstance(host, sd_samplers_lcm.LCMCompVisDenoiser):
            t_s, t_m = (_timestep(host, "sigma", self.noise, one) for one in (sigma, levels))
            return lcm_denoised(denoise, x.to(s), s, level, t_s.to(s).view_as(s), t_m.to(level)).to(x.dtype)
        rescaled = next(rescaled for kind, rescaled in RESCALED if isinstance(host, kind))
        return rescaled(denoise, x.to(s), s, level).to(x.dtype)

    def _picture_per_answer(self) -> Tensor | None:
        """Timestep samplers have eps."""
        if self._space == "sigma" or self._levels is None or self._levels.uniform is not None:
            return None
        alpha = self._alpha(self._levels.level)
        return ((1 - alpha) / alpha).sqrt()

    def _alpha(self, t: Tensor) -> Tensor:
        assert self.noise is not None
        return self.noise.alpha_at(t)

    def _pred_x0(self, host_pred_x0: Callable[..., Tensor], x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        """Of timestep samplers it depends on the level."""
        assert self._levels is not None
        if self._space == "sigma" or self._levels.uniform is not None or len(x_in) != self._images:
            return host_pred_x0(x_in, x_out, sigma)
        alpha = self._alpha(self._levels.level).to(x_in.device, torch.promote_types(x_in.dtype, torch.float32))
        return (x_in - (1 - alpha).sqrt() * x_out) / alpha.sqrt()


def _timestep(host: Any, space: str, noise: NoiseTable | None, level: Tensor) -> Tensor:
    """The host's timestep for each level, any shape."""
    if space == "timestep":
        return level
    if isinstance(host, SD3Denoiser):
        return 1000 * level
    if isinstance(host, sd_samplers_lcm.LCMCompVisDenoiser):  # it has every 20th timestep only
        distinct, where = level.unique(return_inverse=True)
        return host.sigma_to_t(distinct.to(host.log_sigmas))[where].to(level)
    assert noise is not None
    # "Enable quantization in K samplers" in the settings: it has whole timesteps only.
    return noise.sigma_to_t(level, quantize=bool(host.quantize))
