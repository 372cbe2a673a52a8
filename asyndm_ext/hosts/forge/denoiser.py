"""Forge's CFG denoiser with a level per pixel.

Forge calls it with the scalar it expects (the base schedule's sigma), and so are all other extensions. Only the
function around the network's call, which :mod:`~asyndm_ext.hosts.forge.patcher` puts there while sampling runs,
knows the map. The denoiser object belongs to one job; its class is exchanged for a subclass that notices when
another model takes over, and put back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from asyndm_ext.hosts.forge.patcher import ROWS, patched
from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import Columns, ObjectColumns
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, v_denoised
from asyndm_ext.model.network import is_dit
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.noise import NoiseTable

RESCALED = {"epsilon": eps_denoised, "v_prediction": v_denoised, "const": flow_denoised}
"""By the predictor's prediction type."""


def support(sd_model: Any, objects: int = 0, images: int = 1) -> NetworkHooks:
    """The hooks that the loaded model takes.

    Raises:
        UnsupportedModel: it is of a kind that is not supported.
    """
    model = sd_model.forge_objects.unet.model
    if model.predictor.prediction_type not in RESCALED:
        raise UnsupportedModel(f"{type(sd_model).__name__} predicts {model.predictor.prediction_type!r}")
    return NetworkHooks(model.diffusion_model, objects, images)


class PixelDenoiser:
    """The guided model of a job (:class:`asyndm_ext.run.Model`).

    Timestep samplers work in VP space and take eps. Forge turns their latent into VE space by its scalar, computes
    there, and turns the answer back; while this is attached, that is done here, pixel by pixel.

    Args:
        denoiser: the job's ``CFGDenoiser``.
        extra_args: what the host passes to it; the very dictionary, because a refiner switch changes it.
        space: what the sampler works in.
        images: batch size.
        objects: whose attention to capture, or None.
        uncond: keep each call's answer without the prompt.
    """

    def __init__(
        self,
        denoiser: Any,
        extra_args: Mapping[str, Any],
        space: Literal["sigma", "timestep"],
        images: int,
        objects: ObjectColumns | None,
        uncond: bool = False,
    ) -> None:
        self._denoiser = denoiser
        self._extra_args = extra_args
        self._space = space
        self._images = images
        self._objects = objects
        self._switches = {"classic_ddim_eps_estimation": False, "need_last_noise_uncond": uncond}
        self._hooks = ExitStack()
        self._bound: Any = None
        self._network: NetworkHooks | None = None
        self._given: Tensor | None = None
        self._sigma: Tensor | None = None
        self._nominal = 0.0
        self._table: TimestepTable | None = None
        self._texts: list[list[Columns]] = []
        self._read: set[tuple[int, int]] = set()
        self._seen: Tensor | None = None
        self._called = False
        self.noise: NoiseTable | None = None
        self.by_patch = False
        self.last_uncond: Tensor | None = None

    # -- life

    @contextmanager
    def attached(self) -> Iterator[PixelDenoiser]:
        """Hooks, the patched patcher and the exchanged class live inside this block only."""
        host_class = type(self._denoiser)
        with self._hooks:
            self._bind(self._denoiser.inner_model.inner_model)
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
            def inner_model(self) -> Any:
                """Asked for in every call, and another one after the refiner has taken over."""
                found = host_class.inner_model.fget(self)  # type: ignore[attr-defined]
                owner._bind(found.inner_model)
                return found

        return AsynDMDenoiser

    def _bind(self, sd_model: Any) -> None:
        if sd_model is self._bound:
            return
        self._hooks.close()
        objects = self._objects.count if self._objects is not None else 0
        try:
            self._network = support(sd_model, objects, self._images)
        except UnsupportedModel as error:
            raise AsynDMError(f"AsynDM does not support this model: {error}") from error
        model = sd_model.forge_objects.unet.model
        self._predictor = model.predictor
        self.by_patch = is_dit(model.diffusion_model)
        self._hooks.enter_context(self._network.attached())
        self._hooks.enter_context(patched(sd_model, self))
        if self._space == "timestep":
            self.noise = NoiseTable.from_alphas_cumprod(sd_model.alphas_cumprod)
            alphas = sd_model.alphas_cumprod.cpu()
            self._sigmas = ((1 - alphas) / alphas) ** 0.5
        self._bound = sd_model
        if self._given is not None:  # a switch in the middle of a call: what follows is the new model's
            self._prepare(self._given)

    # -- the guided call, seen from the solver

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        """Denoised (noise-level samplers) or eps (timestep samplers); see :class:`asyndm_ext.run.Model`."""
        if self._space == "sigma":
            return self._guided(x, nominal, level)
        sigma = self._sigma_of(level)
        scale = sigma.to(x.device)
        x_ve = x * (scale**2.0 + 1.0) ** 0.5
        nominal_sigma = float(self._sigma_of(torch.tensor(nominal)))
        denoised = self._guided(x_ve, nominal_sigma, sigma)
        if self._denoiser.last_noise_uncond is not None:
            self.last_uncond = self._denoiser.last_noise_uncond * (nominal_sigma / scale)
        assert self._seen is not None
        return (self._seen - denoised) / scale

    def _guided(self, x: Tensor, nominal: float, sigma: Tensor) -> Tensor:
        """The host's denoiser in VE space at each pixel's sigma ``(B,1,H,W)``."""
        self._nominal, self._called = nominal, False
        self._prepare(sigma)
        scalar = torch.full((len(x),), nominal, dtype=x.dtype, device=x.device)
        answer = self._denoiser(x, scalar, **self._extra_args)
        if not self._called:
            raise AsynDMError("AsynDM: the model was not called through the sampler (another extension replaced it?)")
        return answer

    def _prepare(self, sigma: Tensor) -> None:
        """What the network's calls need to know, from the map of sigmas ``(B,1,H,W)`` on the CPU."""
        assert self._network is not None
        self._given = sigma
        self._sigma = self._kept_at_nominal(sigma)
        self._table = None
        if not is_uniform(self._sigma):
            self._table = TimestepTable.from_map(self._timestep(self._sigma), QUANTUM)
        self._network.begin((sigma.shape[-2], sigma.shape[-1]))
        self._read.clear()
        self._texts = [[] for _ in range(self._images)]
        if self._objects is not None:
            for image, columns in self._objects.at(self._denoiser.step):
                self._texts[image].append(columns)

    def _kept_at_nominal(self, sigma: Tensor) -> Tensor:
        """When inpainting, the host puts the original picture, noised to its scalar sigma, where it is to be kept."""
        kept = self._denoiser.mask
        if kept is None:
            return sigma
        kept = torch.as_tensor(kept).double().cpu().amax(dim=-3, keepdim=True)
        return torch.lerp(sigma.double(), torch.full_like(sigma, self._nominal).double(), kept.expand_as(sigma))

    def _sigma_of(self, level: Tensor) -> Tensor:
        """A timestep sampler's sigmas, float32 on the CPU, any shape."""
        return self._sigmas[level.round().long().clip(0, len(self._sigmas) - 1)]

    def _timestep(self, sigma: Tensor) -> Tensor:
        """What the network embeds for each sigma, any shape: of a transformer the sigma itself in thousandths.

        The host looks others up in a table, which it compares with every one: so only the distinct ones.
        """
        if self.by_patch:
            return 1000 * sigma
        distinct, where = sigma.unique(return_inverse=True)
        return self._predictor.timestep(distinct.float()).double().cpu()[where]

    def attention(self) -> Tensor | None:
        return self._network.attention() if self._network is not None else None

    # -- one call of the network, seen from the host (see patcher.Interceptor)

    def starts(self, x: Tensor) -> None:
        self._seen = x

    def network_call(self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        assert self._network is not None and self._sigma is not None
        if ROWS not in c:
            raise AsynDMError("AsynDM: another extension calls the model in a way that hides which image is which")
        marks = c.pop(ROWS).tolist()
        images = [image for image, _ in marks]
        self._called = True
        table = self._table.to(x.device) if self._table is not None else None
        with self._network.call(table, images, [self._token_row(*mark) for mark in marks]):
            if table is None:
                return self._uniform_call(apply_model, x, sigma, c)
            return self._pixel_call(apply_model, x, sigma, images, c)

    def _token_row(self, image: int, condition: int) -> TokenRow | None:
        """What to read from a row: nothing from the negative prompt, nor a second time in another extension's call."""
        if self._objects is None or condition < 0 or (image, condition) in self._read:
            return None
        self._read.add((image, condition))
        return TokenRow(image, self._texts[image][condition])

    def _uniform_call(self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        """One level for all pixels: the host's own computation, at that level."""
        assert self._sigma is not None
        level = float(self._sigma.flatten()[0])
        if level != self._nominal:
            sigma = torch.full_like(sigma, level)
        return apply_model(x, sigma, **c)

    def _pixel_call(
        self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, images: list[int], c: dict[str, Any]
    ) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        s, m = self._levels(x, sigma, images)

        def denoise(x_in: Tensor) -> Tensor:
            return apply_model(x_in.to(x.dtype), sigma, **c).to(precise)

        rescaled = RESCALED[self._predictor.prediction_type]
        return rescaled(denoise, x.to(precise), s, m).to(x.dtype)

    def _levels(self, x: Tensor, sigma: Tensor, images: list[int]) -> tuple[Tensor, Tensor]:
        """The host's sigma ``(N,1,1,1)`` and each pixel's own ``(N,1,H,W)``, at least float32, beside the latent."""
        assert self._sigma is not None
        precise = torch.promote_types(x.dtype, torch.float32)
        return sigma.to(x.device, precise).view(-1, 1, 1, 1), self._sigma[images].to(precise).to(x.device)

    def control_input(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """A control net takes the latent at unit variance, and its scalar timestep."""
        if self._table is None:
            return x
        s, m = self._levels(x, sigma, rows[:, 0].tolist())
        return x * ((s**2 + 1) / (m**2 + 1)).sqrt().to(x.dtype)
