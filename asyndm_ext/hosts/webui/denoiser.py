"""The guided model of a pass: what the WebUIs' CFG denoisers have in common.

A host calls its denoiser with the scalar that it expects (the base schedule's level), and so are all other extensions.
Only around the call of the network, where a host's own subclass of :class:`PassDenoiser` stands while sampling runs, is
the map known. The denoiser object belongs to one job; its class is exchanged for a subclass that notices when another
model takes over, and put back, so nothing outlives the run.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.hosts.webui.compare import Compared
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.neighbours import Neighbours, factor_of, others_listen
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.hosts.webui.tokens import Columns, ObjectColumns
from asyndm_ext.machine.transfer import sent
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.levels import CallLevels
from asyndm_ext.model.prompt_effect import PromptEffect
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.rivals.guidance import Part

LATENT_DIMENSIONS = 4
LAST_UNCOND = "last_noise_uncond"
"""Where a host's denoiser keeps its answer without the prompt, if it has such a place."""


class PassDenoiser(ABC):
    """The guided model of a pass (:class:`asyndm_ext.run.Model`).

    Args:
        denoiser: the job's ``CFGDenoiser``.
        extra_args: what the host passes to it; the very dictionary, because a refiner switch changes it.
        space: what the sampler works in.
        images: batch size.
        objects: whose attention to capture, or None.
        switches: the denoiser's own attributes, set while attached; those that it does not have are left out.
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
        switches: Mapping[str, Any],
        effect: bool = False,
        compared: Compared | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._extra_args = extra_args
        self._space = space
        self._images = images
        self._objects = objects
        self._compared = compared
        self._effect = PromptEffect(images) if effect else None
        self._more_args: dict[str, Any] = {}
        self._switches = {name: value for name, value in switches.items() if hasattr(denoiser, name)}
        self._hooks = ExitStack()
        self._bound: Any = None
        self._network: NetworkHooks | None = None
        self._given: tuple[Tensor, float] | None = None
        self._levels: CallLevels | None = None
        self._texts: list[list[Columns]] = []
        self._called = False
        self._brought: tuple[Tensor, Tensor] | None = None
        self._moved = False
        self.neighbours = Neighbours()
        self.noise: NoiseTable | None = None
        self.changed: Tensor | None = None
        self.patch = 1

    # -- what a host says

    @abstractmethod
    def _model_of(self, inner_model: Any) -> Any:
        """What the hooks belong to, of what the denoiser calls its inner model."""

    @abstractmethod
    def _network_of(self, model: Any) -> NetworkHooks:
        """The hooks of that model's network. Raises UnsupportedModel, NotApplied."""

    @abstractmethod
    def _noise_of(self, model: Any) -> NoiseTable | None:
        """That model's noise levels, where the sampler's space or the network's timesteps need them."""

    @abstractmethod
    def _timestep(self) -> Callable[[Tensor], Tensor]:
        """What the network embeds for each level, any shape. Not a method of this object, which would hold itself."""

    @abstractmethod
    def _pixel_call(self, call: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, levels: Tensor) -> Tensor:
        """A call of the host's at a level of its own for each pixel.

        Args:
            call: the host's own, from latent and scalars.
            x: latent of the rows. sigma: the host's scalar of each.
            levels: ``(N,1,H,W)``.
        """

    @abstractmethod
    def _begins(self, x: Tensor) -> None:
        """A guided call begins, with this latent."""

    def _additions(self, model: Any) -> AbstractContextManager[Any]:
        """What else changes on that model."""
        return nullcontext()

    def _handed_out(self, inner_model: Any) -> Any:
        """What the denoiser gets for its inner model."""
        self._bind(self._model_of(inner_model))
        return inner_model

    def _pred_x0(self, host_pred_x0: Callable[..., Tensor], x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        """The denoiser's picture for the preview, which is also what an interrupt returns."""
        return host_pred_x0(x_in, x_out, sigma)

    def _look(self) -> bool:
        """Whether another extension may change the noise level on its way to the network."""
        return others_listen()

    def _picture_per_answer(self) -> Tensor | None:
        """By how much the picture that is meant changes with an answer, ``(B,1,H,W)``; None: it is the answer."""
        return None

    def _adjusted(self, level: Tensor, nominal: float) -> Tensor:
        """The level map as the network should take it."""
        return level

    # -- life

    @contextmanager
    def attached(self) -> Iterator[PassDenoiser]:
        """Hooks on the host and the exchanged class live inside this block only."""
        denoiser = self._denoiser
        host_class = type(denoiser)
        with self._hooks:
            self._bind(self._model_of(denoiser.inner_model))
            names = [name for name in (*self._switches, LAST_UNCOND) if hasattr(denoiser, name)]
            before = {name: getattr(denoiser, name) for name in names}
            denoiser.__class__ = self._subclass(host_class)
            try:
                self._set(self._switches)
                yield self
            finally:
                denoiser.__class__ = host_class
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
                try:
                    return owner._handed_out(host_class.inner_model.fget(self))  # type: ignore[attr-defined]
                except AttributeError as error:
                    # The denoiser is a module of torch's, which takes it for a sign that there is no such attribute.
                    raise RuntimeError(str(error)) from error

            def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
                return owner._pred_x0(super().get_pred_x0, x_in, x_out, sigma)

        return AsynDMDenoiser

    def _bind(self, model: Any) -> None:
        if model is self._bound:
            return
        self._hooks.close()
        self._moved = self._bound is not None
        with self._nothing_lost():
            try:
                self._network = self._network_of(model)
            except UnsupportedModel as error:
                raise NotApplied(f"models of this kind are not supported: {error}") from error
        self.patch = self._network.patch
        self.noise = self._noise_of(model)
        self._hooks.enter_context(self._network.attached())
        self._hooks.enter_context(self._additions(model))
        if self._compared is not None:
            with self._nothing_lost():
                self._hooks.enter_context(self._compared.attached(self._network.network))
        self._bound = model
        if self._given is not None:  # a switch in the middle of a call: what follows is the new model's
            self._prepare(*self._given)

    @contextmanager
    def _nothing_lost(self) -> Iterator[None]:
        """Where a pass has to go on without us it is begun anew, which it cannot be once a refiner has taken over."""
        try:
            yield
        except NotApplied as reason:
            if not self._moved:
                raise
            raise AsynDMError(f"AsynDM: {reason}; the refiner has taken over already") from reason

    # -- the guided call, seen from the solver

    def _guided(self, x: Tensor, nominal: float, level: Tensor) -> tuple[Tensor, Tensor]:
        """The host's denoiser at each pixel's level ``(B,1,H,W)``; and the scalars ``(B,)`` that it was given, as they
        are now."""
        self._called = False
        if self._compared is not None:
            self._compared.begins(self._denoiser)
        self.neighbours.begins(x, self._prepare(level, nominal), self._look())
        self._begins(x)
        if self._effect is not None:
            self._effect.begin()
        scalar = torch.full((len(x),), nominal, dtype=x.dtype, device=x.device)
        answer = self._denoiser(x, scalar, **{**self._extra_args, **self._more_args})
        with self._nothing_lost():
            if not self._called:
                raise NotApplied("the model was not called through the sampler (another extension replaced it?)")
        self.changed = factor_of(scalar, nominal) if self._look() else None
        return answer, scalar

    def _prepare(self, level: Tensor, nominal: float) -> CallLevels:
        """What the network's calls need to know, from the level map ``(B,1,H,W)`` on the CPU."""
        assert self._network is not None
        self._given = level, nominal
        self._levels = CallLevels(self._adjusted(level, nominal), nominal, self._timestep())
        self._network.begin(self._levels.size)
        if self._compared is not None:
            self._compared.begin(self._levels.size)
        self._read_texts()
        return self._levels

    def _read_texts(self) -> None:
        """Each image's texts in this step: where the objects are in them."""
        self._texts = [[] for _ in range(self._images)]
        if self._objects is not None:
            for image, columns in self._objects.at(self._denoiser.step):
                self._texts[image].append(columns)

    def attention(self) -> Tensor | None:
        """See :class:`asyndm_ext.run.Model`."""
        if self._effect is None:
            return self.neighbours.maps(self._network.attention() if self._network is not None else None, "attention")
        maps, scale = self._effect.maps(), self._picture_per_answer()
        if maps is not None and scale is not None:
            maps = maps * scale.to(maps)
        return self.neighbours.maps(maps, "answer without the prompt")

    # -- one call of the network, seen from the host

    def _network_call(
        self,
        call: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigma: Tensor,
        images: Sequence[int],
        token_rows: Sequence[TokenRow | None],
        prompted: Sequence[bool | None],
        sides: Sequence[Part] = (),
    ) -> Tensor:
        """A slice of the batch, or all of it.

        Args:
            call: the host's own, from latent and scalars.
            x: latent of the rows. sigma: what the host was about to take.
            images: the image that each row belongs to.
            token_rows: what to read from each row.
            sides: with or without the prompt, for another method; empty: not a call of the host's own.
            prompted: whether each row has the prompt; None: it is no part of guidance.
        """
        answer = self._answer(call, x, sigma, images, token_rows, sides)
        if self._effect is not None:
            self._effect.take(answer, images, prompted)
        return answer

    def _answer(
        self,
        call: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigma: Tensor,
        images: Sequence[int],
        token_rows: Sequence[TokenRow | None],
        sides: Sequence[Part],
    ) -> Tensor:
        assert self._network is not None and self._levels is not None
        self._called = True
        levels, factors = self._levels, [1.0] * len(x)
        if levels.uniform != levels.nominal:  # otherwise all is the host's own
            sigma, factors = self.neighbours.change(sigma, levels.nominal, len(x), self._look())
        if any(factor != 1 for factor in factors):
            earlier = self.neighbours.back_at_the_first(x, images, sigma)
            levels, factors = (levels, factors) if earlier is None else (earlier, [1.0] * len(x))
        table, parts = levels.table(images, factors, x.device)
        own = None if levels.uniform is not None else levels.of(images, factors)
        along = [] if own is None or x.dtype == torch.float64 else [own.float()]
        network = self._network

        def once(reading: bool) -> Tensor:
            rows = token_rows if reading else [None] * len(token_rows)
            with self._nothing_lost(), network.call(table, parts, rows, along) as brought:
                if own is None:
                    return call(x, levels.scalar(factors, sigma))
                self._brought = (own, brought[0]) if brought else None
                try:
                    return self._pixel_call(call, x, sigma, own)
                finally:
                    self._brought = None

        if self._compared is None or not sides:
            return once(True)
        return self._compared.answer(once, images, sides)

    def _led(self, guided: Tensor, cond: Tensor, uncond: Tensor, is_noise: bool) -> Tensor:
        """The host's guided answer, and what another method adds to it; ``(B,C,H,W)`` each.

        Args:
            is_noise: whether answers are noise, and not denoised at the pixels' levels.
        """
        assert self._compared is not None and self._levels is not None
        with self._nothing_lost():
            if guided.ndim != LATENT_DIMENSIONS:
                raise NotApplied("compare: the other methods know no video")
            sigma = None if is_noise else beside(guided, self._levels.level)[0]
            return self._compared.led(guided, cond, uncond, sigma)

    def _beside(self, x: Tensor, *levels: Tensor) -> tuple[Tensor, ...]:
        """See :func:`beside`; the call's own levels are there already."""
        known = self._brought
        return beside(x, *(known[1] if known is not None and one is known[0] else one for one in levels))


def beside(x: Tensor, *levels: Tensor) -> tuple[Tensor, ...]:
    """Levels ``(N,)`` or ``(N,1,H,W)``, at least float32, beside the latent ``(N,C,H,W)`` or ``(N,C,T,H,W)``."""
    precise = torch.promote_types(x.dtype, torch.float32)

    def placed(level: Tensor) -> Tensor:
        if level.ndim == 1:
            return level.view(-1, *[1] * (x.ndim - 1))
        return level.unsqueeze(2) if level.ndim < x.ndim else level

    return tuple(placed(sent(level.to(precise), x.device)) for level in levels)
