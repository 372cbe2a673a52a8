"""Forge's patcher, patched for one pass: with a stand-in for the one class of Forge's that this needs."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch
from torch import Tensor


class Condition:
    """As Forge's: a tensor that is cut or repeated to the batch and joined with its like."""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond


class Unet:
    """As Forge's patcher: options are data on it."""

    def __init__(self, **options: Any) -> None:
        self.model_options = {"transformer_options": {"patches": {"attn1_patch": [print]}}, **options}


class Recorder:
    """The interceptor: what it was told, and an answer of its own."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def starts(self, x: Tensor) -> None:
        self.seen.append(("starts", x))

    def network_call(self, apply_model: Any, x: Tensor, sigma: Tensor, c: dict[str, Any]) -> Tensor:
        self.seen.append(("call", c.pop("asyndm_rows").tolist()))
        return apply_model(x, sigma, **c) + 1

    def control_input(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        return 2 * x

    def guided(self, guided: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        self.seen.append(("guided", guided, cond, uncond))
        return guided + 1


@pytest.fixture
def patcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    names = ("backend", "backend.sampling", "backend.sampling.condition")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[names[-1]].Condition = Condition  # type: ignore[attr-defined]
    name = "asyndm_ext.hosts.forge.patcher"
    monkeypatch.delitem(sys.modules, name, raising=False)
    from importlib import import_module

    yield import_module(name)
    sys.modules.pop(name, None)


def model(unet: Unet) -> Any:
    return types.SimpleNamespace(forge_objects=types.SimpleNamespace(unet=unet))


def denoise(x: Tensor, sigma: Tensor, **c: Any) -> Tensor:
    assert "asyndm_rows" not in c
    return 10 * x


def call(unet: Unet, x: Tensor) -> Tensor:
    """A step as Forge makes it: modifiers, rows of one image after the other, negative prompt first, the wrapper."""
    cond, uncond = [{"model_conds": {}} for _ in range(2)], [{"model_conds": {}}]
    for modifier in unet.model_options["conditioning_modifiers"]:
        _, x, _, uncond, cond, *rest = modifier(None, x, torch.ones(2), uncond, cond, 7.0, unet.model_options, 1)
        assert rest == [7.0, unet.model_options, 1]
    rows = torch.cat([entry["model_conds"]["asyndm_rows"].cond for entry in [*uncond, *reversed(cond)]])
    arguments = {"input": x.repeat(3, 1), "timestep": torch.ones(6), "c": {"asyndm_rows": rows}, "cond_or_uncond": []}
    return unet.model_options["model_function_wrapper"](denoise, arguments)


def test_rows_are_marked_whatever_their_order(patcher: Any) -> None:
    loaded, recorder = model(Unet()), Recorder()
    with patcher.patched(loaded, recorder):
        answer = call(loaded.forge_objects.unet, torch.ones(2, 1))
    assert answer.flatten().tolist() == [11.0] * 6
    assert torch.equal(recorder.seen[0][1], torch.ones(2, 1))
    assert recorder.seen[1] == ("call", [[0, -1], [1, -1], [0, 1], [1, 1], [0, 0], [1, 0]])


def test_another_wrapper_calls_the_model_through_ours(patcher: Any) -> None:
    def other(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        return 3 * apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    loaded = model(Unet(model_function_wrapper=other, conditioning_modifiers=[lambda *given: given]))
    with patcher.patched(loaded, Recorder()):
        assert call(loaded.forge_objects.unet, torch.ones(2, 1)).flatten().tolist() == [33.0] * 6


def test_only_the_first_control_net_of_a_chain_changes_its_input(patcher: Any) -> None:
    loaded = model(Unet())
    with patcher.patched(loaded, Recorder()):
        options = loaded.forge_objects.unet.model_options["transformer_options"]
        (modifier,) = options["controlnet_conditioning_modifiers"]
        cond = {"asyndm_rows": torch.zeros(2, 2)}
        x, _, cond, batches = modifier(None, torch.ones(2, 1), torch.ones(2), cond, 2)
        again, *_ = modifier(None, x, torch.ones(2), cond, batches)
    assert x.tolist() == again.tolist() == [[2.0], [2.0]]


def test_what_was_there_is_put_back_as_it_was(patcher: Any) -> None:
    original = Unet()
    before = {**original.model_options, "transformer_options": dict(original.model_options["transformer_options"])}
    loaded = model(original)
    with pytest.raises(RuntimeError, match="in the middle"), patcher.patched(loaded, Recorder()):
        assert loaded.forge_objects.unet is not original
        raise RuntimeError("in the middle")
    assert loaded.forge_objects.unet is original
    assert original.model_options == before


def test_a_patcher_put_there_in_between_stays(patcher: Any) -> None:
    loaded, another = model(Unet()), Unet()
    with patcher.patched(loaded, Recorder()):
        loaded.forge_objects.unet = another
    assert loaded.forge_objects.unet is another


def test_the_answer_without_the_prompt_is_told_after_guidance(patcher: Any) -> None:
    """Behind what others do there, and at CFG scale 1 too; where nobody asks, nothing is added."""

    def other(arguments: dict[str, Any]) -> Tensor:
        return arguments["denoised"]

    loaded, recorder = model(Unet(sampler_post_cfg_function=[other])), Recorder()
    answers = [torch.full((2, 1), value) for value in (3.0, 2.0, 1.0)]
    with patcher.patched(loaded, recorder):
        options = loaded.forge_objects.unet.model_options
        assert options["sampler_post_cfg_function"] == [other] and "disable_cfg1_optimization" not in options
    with patcher.patched(loaded, recorder, uncond=True):
        options = loaded.forge_objects.unet.model_options
        assert options["disable_cfg1_optimization"] is True
        ours, last = options["sampler_post_cfg_function"]
        assert last is other, "it sees what we have made of the answer"
        given = dict(zip(("denoised", "cond_denoised", "uncond_denoised"), answers, strict=True))
        assert ours(given).tolist() == [[4.0], [4.0]]
    assert recorder.seen == [("guided", *answers)]
    assert loaded.forge_objects.unet.model_options["sampler_post_cfg_function"] == [other]


class Control:
    """A control net that asks nobody about its input, as reForge's."""

    previous_controlnet = None

    def __init__(self) -> None:
        self.transformer_options: dict[str, Any] = {}

    def get_control(self, x: Tensor, sigma: Tensor, cond: dict[str, Any], batches: int, options: Any) -> Any:
        assert "asyndm_rows" not in cond and options == "options"
        return x, batches


def test_a_chain_that_asks_nobody_is_stood_in_front_of(patcher: Any) -> None:
    unet, control = Unet(), Control()
    unet.controlnet_linked_list = control  # type: ignore[attr-defined]
    loaded = model(unet)
    with patcher.patched(loaded, Recorder()):
        first = loaded.forge_objects.unet.controlnet_linked_list
        cond = {"asyndm_rows": torch.zeros(2, 2), "c_crossattn": None}
        x, batches = first.get_control(torch.ones(2, 1), torch.ones(2), cond, 2, "options")
        assert x.tolist() == [[2.0], [2.0]] and batches == 2
        assert "asyndm_rows" in cond, "the network's call needs them"
        x, _ = first.get_control(torch.ones(2, 1), torch.ones(2), {}, 2, "options")
        assert x.tolist() == [[1.0], [1.0]], "in a call that is not ours"
        first.transformer_options = {"a": 1}
        assert control.transformer_options == {"a": 1} and first.previous_controlnet is None
    assert loaded.forge_objects.unet.controlnet_linked_list is control


def test_a_chain_that_asks_stays_as_it_is(patcher: Any) -> None:
    class Asks:
        def get_control(self, x: Tensor, sigma: Tensor, cond: dict[str, Any], batches: int) -> None:
            self.to.get("controlnet_conditioning_modifiers", [])  # type: ignore[attr-defined]

    unet = Unet()
    unet.controlnet_linked_list = control = Asks()  # type: ignore[attr-defined]
    loaded = model(unet)
    with patcher.patched(loaded, Recorder()):
        assert loaded.forge_objects.unet.controlnet_linked_list is control
