"""Forge's UNet patcher with three additions, for as long as a pass runs.

Forge keeps what changes a model's calls as data on a patcher (``model_options``), which it reads anew in every step.
So the loaded model gets another patcher for the time of the pass: a copy with our functions beside those that other
extensions have put there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from asyndm_ext.hosts.forge.relatives import asks_modifiers, condition_class

ROWS = "asyndm_rows"
"""Under this name each row of the network's batch carries ``(image, condition)``, whatever order it is run in;
the condition is its number among the image's AND-conditions, or -1 for the negative prompt."""


ALWAYS_UNCOND = "disable_cfg1_optimization"
"""The host's own option, by which it asks the network for the negative prompt at CFG scale 1, too."""


class Interceptor(Protocol):
    """What the patched calls go through."""

    def starts(self, x: Tensor) -> None:
        """The guided call begins, with the latent as it really is (after masking)."""

    def network_call(self, apply_model: Callable[..., Tensor], x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        """In the place of ``apply_model(x, sigma, **c)``: denoised."""

    def control_input(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """The latent as a control net should see it, which scales it by its scalar sigma."""

    def guided(self, guided: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        """Guidance is done; returns the answer to go on with. All three are denoised, ``(B,C,H,W)``."""


@contextmanager
def patched(sd_model: Any, interceptor: Interceptor, uncond: bool = False) -> Iterator[None]:
    """Give the loaded model the additions; what was there before is put back.

    Args:
        uncond: tell the interceptor the guided answer and those with and without the prompt, at any CFG scale.
    """
    objects = sd_model.forge_objects
    original = objects.unet
    # Not its clone(): that copies other extensions' options deeply, tensors included.
    patcher = copy.copy(original)
    patcher.model_options = _with_additions(original.model_options, interceptor, uncond)
    control = getattr(original, "controlnet_linked_list", None)
    if control is not None and not asks_modifiers(control):
        patcher.controlnet_linked_list = _FirstControl(control, interceptor)
    objects.unet = patcher
    try:
        yield
    finally:
        if objects.unet is patcher:
            objects.unet = original


def changes_calls(options: dict[str, Any]) -> bool:
    """Whether another extension has a say in what the network is called with: in its noise level, among others."""
    return any(map(options.get, ("model_function_wrapper", "conditioning_modifiers", "sampler_pre_cfg_function")))


def _with_additions(options: dict[str, Any], interceptor: Interceptor, uncond: bool) -> dict[str, Any]:
    transformer = dict(options.get("transformer_options", {}))
    # Plain functions: the host may copy the options deeply, which duplicates objects.
    transformer["controlnet_conditioning_modifiers"] = [
        *transformer.get("controlnet_conditioning_modifiers", []),
        _control_modifier(interceptor),
    ]
    additions = {
        "transformer_options": transformer,
        "conditioning_modifiers": [_row_marker(interceptor), *options.get("conditioning_modifiers", [])],
        "model_function_wrapper": _wrapper(interceptor, options.get("model_function_wrapper")),
    }
    if uncond:
        others = options.get("sampler_post_cfg_function", [])
        additions |= {"sampler_post_cfg_function": [_after_guidance(interceptor), *others], ALWAYS_UNCOND: True}
    return {**options, **additions}


def _wrapper(interceptor: Interceptor, other: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    """Ours is the innermost: another extension's wrapper calls the model through it.

    It may do so slice by slice, and cuts what it knows of then: not our rows.
    """

    def wrapper(apply_model: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        done = 0

        def apply(x: Tensor, sigma: Tensor, **c: Any) -> Tensor:
            nonlocal done
            rows = c.get(ROWS)
            if rows is not None and len(rows) > len(x):
                done = done if done + len(x) <= len(rows) else 0  # another round
                c[ROWS] = rows[done : done + len(x)]
                done += len(x)
            return interceptor.network_call(apply_model, x, sigma, c)

        if other is not None:
            return other(apply, arguments)
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    return wrapper


def _after_guidance(interceptor: Interceptor) -> Callable[[dict[str, Any]], Tensor]:
    def after(arguments: dict[str, Any]) -> Tensor:
        return interceptor.guided(*(arguments[name] for name in ("denoised", "cond_denoised", "uncond_denoised")))

    return after


def _row_marker(interceptor: Interceptor) -> Callable[..., tuple]:
    condition = condition_class()

    def modifier(
        model: Any, x: Tensor, sigma: Tensor, uncond: list | None, cond: list, *rest: Any
    ) -> tuple[Any, Tensor, Tensor, list | None, list]:
        interceptor.starts(x)
        image = torch.arange(len(x))
        for number, entry in [*enumerate(cond), *((-1, entry) for entry in uncond or ())]:
            entry["model_conds"][ROWS] = condition(torch.stack([image, torch.full_like(image, number)], dim=1))
        return model, x, sigma, uncond, cond, *rest

    return modifier


def _control_modifier(interceptor: Interceptor) -> Callable[..., tuple]:
    def modifier(
        control: Any, x: Tensor, sigma: Tensor, cond: dict[str, Any], batches: int
    ) -> tuple[Tensor, Tensor, dict[str, Any], int]:
        # A chain of control nets hands its input from one to the next: only the first one changes it.
        rows = cond.pop(ROWS, None)
        return (x if rows is None else interceptor.control_input(x, sigma, rows)), sigma, cond, batches

    return modifier


class _FirstControl:
    """Stands in front of a chain of control nets that asks nobody about its input."""

    def __init__(self, host: Any, interceptor: Interceptor) -> None:
        vars(self).update(_host=host, _interceptor=interceptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._host, name, value)

    def get_control(self, x: Tensor, sigma: Tensor, cond: dict[str, Any], *rest: Any, **options: Any) -> Any:
        rows = cond.get(ROWS)
        x = x if rows is None else self._interceptor.control_input(x, sigma, rows)
        others = {name: value for name, value in cond.items() if name != ROWS}
        return self._host.get_control(x, sigma, others, *rest, **options)
