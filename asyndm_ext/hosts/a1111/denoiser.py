"""A1111's CFG denoiser with a level per pixel.

The host calls it with the scalar it expects (the base schedule's level). Only its innermost model wrapper,
which this module stands in front of while sampling runs, knows the map. The denoiser object belongs to one
job; its class is exchanged for a subclass and put back, so nothing outlives the run.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import k_diffusion.external
import torch
from modules import sd_samplers_lcm, sd_samplers_timesteps, sd_unet
from modules.models.sd3.sd3_model import SD3Denoiser
from torch import Tensor

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.neighbours import Neighbours, others_listen
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import Columns, ObjectColumns
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, lcm_denoised, v_denoised, v_to_eps
from asyndm_ext.model.levels import CallLevels
from asyndm_ext.model.network import is_dit
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.noise import NoiseTable

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


class PixelDenoiser:
    """The guided model of a job (:class:`asyndm_ext.run.Model`).

    Args:
        denoiser: the job's ``CFGDenoiser``.
        extra_args: what the host passes to it; the very dictionary, because a refiner switch changes it.
        space: what the sampler works in.
        images: batch size.
        objects: whose attention to capture, or None.
        guidance: what the CFG scale is multiplied by.
        uncond: keep each call's answer without the prompt.
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
    ) -> None:
        self._denoiser = denoiser
        self._extra_args = extra_args
        self._space = space
        self._images = images
        self._objects = objects
        # The host's own switches (sic), which its CFG++ sets and never resets.
        self._switches = {"cond_scale_miltiplier": guidance, "need_last_noise_uncond": uncond}
        self._hooks = ExitStack()
        self._bound: Any = None
        self._wrapped: InnerModel | None = None
        self._network: NetworkHooks | None = None
        self._rows: list[int] = []
        self._conditional = 0
        self._texts: list[list[Columns]] = []
        self._read: list[int] = []
        self._cursor = 0
        self._levels: CallLevels | None = None
        self.neighbours = Neighbours()
        self.noise: NoiseTable | None = None
        self.by_patch = False

    # -- life

    @contextmanager
    def attached(self) -> Iterator[PixelDenoiser]:
        """Hooks on the network and the exchanged class live inside this block only."""
        host_class = type(self._denoiser)
        with self._hooks:
            self._bind(self._denoiser.inner_model)
            before = {name: getattr(self._denoiser, name) for name in (*self._switches, "last_noise_uncond")}
            self._denoiser.__class__ = self._subclass(host_class)
            try:
                self._set(self._switches)
                yield self
            finally:
                self._denoiser.__class__ = host_class
                self._set(before)

    def _set(self, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            setattr(self._denoiser, name, value)

    def _subclass(self, host_class: type) -> type:
        # A class is always a circle of references: what it holds on to stays until the garbage collector comes by.
        owner = weakref.proxy(self)

        class AsynDMDenoiser(host_class):  # type: ignore[misc, valid-type]
            @property
            def inner_model(self) -> InnerModel:
                return owner._wrap(host_class.inner_model.fget(self))  # type: ignore[attr-defined]

            def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
                return owner._pred_x0(super().get_pred_x0, x_in, x_out, sigma)

        return AsynDMDenoiser

    def _wrap(self, host: Any) -> InnerModel:
        """The host makes a new inner model when the refiner takes over; the hooks move along with it."""
        if self._wrapped is None or host is not self._bound:
            self._bind(host)
            self._wrapped = InnerModel(host, weakref.proxy(self))
        return self._wrapped

    def _bind(self, host: Any) -> None:
        if host is self._bound:
            return
        self._hooks.close()
        network = self._network_of(host)
        self.noise = self._noise_table(host)
        self.by_patch = is_dit(network)
        try:
            self._network = NetworkHooks(network, self._objects.count if self._objects else 0, self._images)
        except UnsupportedModel as error:
            raise AsynDMError(f"AsynDM does not support this model: {error}") from error
        self._hooks.enter_context(self._network.attached())
        self._bound = host
        if self._levels is not None:  # a switch in the middle of a call: what follows is the new model's
            self._prepare(self._levels.level, self._levels.nominal)

    def _network_of(self, host: Any) -> torch.nn.Module:
        if getattr(sd_unet, "current_unet", None) is not None:
            raise AsynDMError("AsynDM cannot work inside an external UNet (TensorRT, say); set SD Unet to None")
        kinds: Any
        if self._space == "sigma":
            kinds = (*(kind for kind, _ in RESCALED), sd_samplers_lcm.LCMCompVisDenoiser)
        else:
            kinds = (sd_samplers_timesteps.CompVisTimestepsDenoiser, sd_samplers_timesteps.CompVisTimestepsVDenoiser)
        if not isinstance(host, kinds):
            raise AsynDMError(f"AsynDM does not support this kind of model yet ({type(host).__name__})")
        network = getattr(getattr(host.inner_model, "model", None), "diffusion_model", None)
        if network is None:
            raise AsynDMError(f"AsynDM finds no network in {type(host.inner_model).__name__}")
        if is_dit(network) and not isinstance(host, SD3Denoiser):
            # The WebUI takes what SD3 answers for eps there, and LCM fails altogether.
            raise AsynDMError("AsynDM: this sampler does not go with SD3, also not without AsynDM; take Euler, say")
        return network

    def _noise_table(self, host: Any) -> NoiseTable:
        if self._space == "sigma":
            return NoiseTable(host.log_sigmas)
        return NoiseTable.from_alphas_cumprod(host.inner_model.alphas_cumprod)

    # -- the guided call, seen from the solver

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.neighbours.begins(x, self._prepare(level, nominal), others_listen())
        self._plan_rows(x)
        scalar = torch.full((len(x),), nominal, dtype=x.dtype, device=x.device)
        answer = self._denoiser(x, scalar, **self._extra_args)
        if self._cursor == 0:
            raise AsynDMError("AsynDM: the model was not called through the sampler (another extension replaced it?)")
        return answer

    def _prepare(self, level: Tensor, nominal: float) -> CallLevels:
        """What the network's calls need to know, from the level map ``(B,1,H,W)`` on the CPU."""
        assert self._network is not None and self.noise is not None
        timestep = partial(_timestep, self._bound, self._space, self.noise)
        self._levels = CallLevels(level, nominal, timestep)
        self._network.begin(self._levels.size)
        return self._levels

    @property
    def last_uncond(self) -> Tensor | None:
        return self._denoiser.last_noise_uncond

    def attention(self) -> Tensor | None:
        return self.neighbours.attention(self._network.attention() if self._network is not None else None)

    def _plan_rows(self, x: Tensor) -> None:
        """The host's row order: each image's AND-conditions, image after image, then one uncond row per image."""
        self._cursor = 0
        conditions = [len(batch) for batch in self._extra_args["cond"].batch]
        cond_rows = [image for image, count in enumerate(conditions) for _ in range(count)]
        # Instruct-pix2pix models have a second set of uncond rows.
        self._rows = [*cond_rows, *range(self._images), *range(self._images)]
        self._conditional = len(cond_rows)
        self._texts = [[] for _ in range(self._images)]
        self._read = [0] * self._images
        if self._objects is not None:
            for image, columns in self._objects.at(self._denoiser.step):
                self._texts[image].append(columns)
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
        assert self._network is not None and self._levels is not None
        first, self._cursor = self._cursor, self._cursor + len(x)
        if self._cursor <= len(self._rows):
            rows = self.neighbours.images_of(x, self._rows[first : self._cursor])
            token_rows = [self._token_row(first + row, image) for row, image in enumerate(rows)]
        else:
            rows, token_rows = [row % self._images for row in range(len(x))], []
        levels, factors = self._levels, [1.0] * len(x)
        if levels.uniform != levels.nominal:  # otherwise all is the host's own
            sigma, factors = self.neighbours.change(sigma, levels.nominal, len(x), others_listen())
        if any(factor != 1 for factor in factors):
            earlier = self.neighbours.back_at_the_first(x, rows, sigma)
            levels, factors = (levels, factors) if earlier is None else (earlier, [1.0] * len(x))
        table, parts = levels.table(rows, factors, x.device)
        with self._network.call(table, parts, token_rows):
            if levels.uniform is not None:
                return host(x, levels.scalar(factors, sigma), **kwargs)
            return self._pixel_call(host, x, sigma, levels.of(rows, factors), kwargs)

    def _pixel_call(self, host: Any, x: Tensor, sigma: Tensor, levels: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """A call at a level of its own for each pixel ``(N,1,H,W)``."""
        precise = torch.promote_types(x.dtype, torch.float32)
        level = levels.to(precise).to(x.device)
        if self._space == "timestep":
            answer = host(x, sigma, **kwargs)
            if isinstance(host, sd_samplers_timesteps.CompVisTimestepsVDenoiser):
                alpha_s, alpha_m = self._alpha(sigma.cpu()).view(-1, 1, 1, 1), self._alpha(levels)
                answer = v_to_eps(answer.to(precise), x, alpha_s.to(level), alpha_m.to(level))
            return answer.to(x.dtype)
        s = sigma.to(precise).view(-1, 1, 1, 1)

        def denoise(x_in: Tensor) -> Tensor:
            return host(x_in.to(x.dtype), sigma, **kwargs).to(precise)

        if isinstance(host, sd_samplers_lcm.LCMCompVisDenoiser):
            t_s, t_m = (_timestep(host, "sigma", self.noise, one) for one in (sigma, levels))
            return lcm_denoised(denoise, x.to(precise), s, level, t_s.to(s).view_as(s), t_m.to(level)).to(x.dtype)
        rescaled = next(call for kind, call in RESCALED if isinstance(host, kind))
        return rescaled(denoise, x.to(precise), s, level).to(x.dtype)

    def _alpha(self, t: Tensor) -> Tensor:
        assert self.noise is not None
        return self.noise.alpha_at(t)

    def _pred_x0(self, host_pred_x0: Any, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        """The preview, which is also what an interrupt returns: for timestep samplers it depends on the level."""
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
