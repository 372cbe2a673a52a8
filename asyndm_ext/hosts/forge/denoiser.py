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
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from asyndm_ext.hosts.forge.patcher import ROWS, changes_calls, patched
from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.neighbours import Neighbours, others_listen
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import Columns, ObjectColumns
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, v_denoised
from asyndm_ext.model.levels import CallLevels
from asyndm_ext.model.network import is_dit
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
        self._nominal = 0.0
        self._levels: CallLevels | None = None
        self.neighbours = Neighbours()
        self._others = False
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
        self._others = changes_calls(sd_model.forge_objects.unet.model_options)
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
            return self._guided(x, nominal, level)[0]
        sigma = self._sigma_of(level)
        scale = sigma.to(x.device)
        x_ve = x * (scale**2.0 + 1.0) ** 0.5
        nominal_sigma = float(self._sigma_of(torch.tensor(nominal)))
        denoised, scalar = self._guided(x_ve, nominal_sigma, sigma)
        if self._denoiser.last_noise_uncond is not None:
            self.last_uncond = self._denoiser.last_noise_uncond * (nominal_sigma / scale)
        # The host divides by its very scalar, which other extensions may have changed in its place.
        changed = (scalar / torch.full_like(scalar, nominal_sigma)).view(-1, 1, 1, 1)
        scale = scale * torch.where(changed.isfinite() & (changed > 0), changed, 1.0)
        if self._denoiser.mask is not None:
            assert self._seen is not None
            x_ve = self._seen
        return (x_ve - denoised) / scale

    def _guided(self, x: Tensor, nominal: float, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The host's denoiser in VE space at each pixel's sigma ``(B,1,H,W)``; and the scalars ``(B,)`` that it was
        given, as they are now."""
        self._nominal, self._called = nominal, False
        self.neighbours.begins(x, self._prepare(sigma), self._look())
        scalar = torch.full((len(x),), nominal, dtype=x.dtype, device=x.device)
        answer = self._denoiser(x, scalar, **self._extra_args)
        if not self._called:
            raise AsynDMError("AsynDM: the model was not called through the sampler (another extension replaced it?)")
        return answer, scalar

    def _look(self) -> bool:
        """Whether another extension may change the noise level on its way to the network."""
        return self._others or others_listen()

    def _prepare(self, sigma: Tensor) -> CallLevels:
        """What the network's calls need to know, from the map of sigmas ``(B,1,H,W)`` on the CPU."""
        assert self._network is not None
        self._given = sigma
        timestep = partial(_timestep, self._predictor, self.by_patch)
        self._levels = CallLevels(self._kept_at_nominal(sigma), self._nominal, timestep)
        self._network.begin(self._levels.size)
        self._read.clear()
        self._texts = [[] for _ in range(self._images)]
        if self._objects is not None:
            for image, columns in self._objects.at(self._denoiser.step):
                self._texts[image].append(columns)
        return self._levels

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

    def attention(self) -> Tensor | None:
        return self.neighbours.attention(self._network.attention() if self._network is not None else None)

    # -- one call of the network, seen from the host (see patcher.Interceptor)

    def starts(self, x: Tensor) -> None:
        self._seen = x

    def network_call(self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        assert self._network is not None and self._levels is not None
        if ROWS not in c:
            raise AsynDMError("AsynDM: another extension calls the model in a way that hides which image is which")
        marks = c.pop(ROWS).tolist()
        images = [image for image, _ in marks]
        self._called = True
        levels, factors = self._levels, [1.0] * len(images)
        if levels.uniform != levels.nominal:  # otherwise all is the host's own
            sigma, factors = self.neighbours.change(sigma, levels.nominal, len(images), self._look())
        if any(factor != 1 for factor in factors):
            earlier = self.neighbours.back_at_the_first(x, images, sigma)
            levels, factors = (levels, factors) if earlier is None else (earlier, [1.0] * len(images))
        table, parts = levels.table(images, factors, x.device)
        with self._network.call(table, parts, [self._token_row(*mark) for mark in marks]):
            if levels.uniform is not None:
                return apply_model(x, levels.scalar(factors, sigma), **c)
            return self._pixel_call(apply_model, x, sigma, levels.of(images, factors), c)

    def _token_row(self, image: int, condition: int) -> TokenRow | None:
        """What to read from a row: nothing from the negative prompt, nor a second time in another extension's call."""
        if self._objects is None or condition < 0 or (image, condition) in self._read:
            return None
        self._read.add((image, condition))
        return TokenRow(image, self._texts[image][condition])

    def _pixel_call(
        self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, levels: Tensor, c: dict[str, Any]
    ) -> Tensor:
        """A call at a sigma of its own for each pixel ``(N,1,H,W)``."""
        s, m = _beside(x, sigma, levels)

        def denoise(x_in: Tensor) -> Tensor:
            return apply_model(x_in.to(x.dtype), sigma, **c).to(s)

        rescaled = RESCALED[self._predictor.prediction_type]
        return rescaled(denoise, x.to(s), s, m).to(x.dtype)

    def control_input(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """A control net takes the latent at unit variance, and its scalar timestep."""
        levels = self._levels
        if levels is None or levels.uniform is not None:
            return x
        images = rows[:, 0].tolist()
        sigma, factors = self.neighbours.change(sigma, levels.nominal, len(images), self._look())
        s, m = _beside(x, sigma, levels.of(images, factors))
        return x * ((s**2 + 1) / (m**2 + 1)).sqrt().to(x.dtype)


def _beside(x: Tensor, sigma: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The host's sigma ``(N,1,1,1)`` and each pixel's own ``(N,1,H,W)``, at least float32, beside the latent."""
    precise = torch.promote_types(x.dtype, torch.float32)
    return sigma.to(x.device, precise).view(-1, 1, 1, 1), levels.to(precise).to(x.device)


def _timestep(predictor: Any, by_patch: bool, sigma: Tensor) -> Tensor:
    """What the network embeds for each sigma, any shape: of a transformer the sigma itself in thousandths.

    The host looks others up in a table, which it compares with every one: so only the distinct ones.
    """
    if by_patch:
        return 1000 * sigma
    distinct, where = sigma.unique(return_inverse=True)
    return predictor.timestep(distinct.float()).double().cpu()[where]
