"""On a device of its own, what the attention is read from: attentions that are not torch's, large logits, texts of
several lengths, and the networks of later years."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from support import pretend
from support.dit import NAMES, DiT, normal
from support.foreign import FOREIGN, Attention, torchs_functions_but
from support.small import SIDE, SMALL
from support.told import CPU, Told, close, number, waits
from torch import Tensor, nn

from asyndm_ext.bench import count, dit, unet
from asyndm_ext.bench.cases import CASES
from asyndm_ext.bench.count import CALL, NETWORK
from asyndm_ext.bench.counting import Event, Log
from asyndm_ext.bench.subjects import random_subject
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.cross_probabilities import VALUE, fused_probabilities, token_probabilities
from asyndm_ext.model.timesteps import TimestepTable

SIZE = (12, 16)
TORCHS = nn.functional.scaled_dot_product_attention
LAYERS = {"sdxl": 2, "sd3": 2, "flux": 3}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend.needed()
    for name, case in SMALL.items():
        monkeypatch.setitem(CASES, name, case)


# -- attentions that are not torch's


def called(patch: pytest.MonkeyPatch, attention: Attention) -> None:
    """By the network itself."""
    for module in (dit, unet):
        patch.setattr(module, "functional", torchs_functions_but(attention))


def instead(patch: pytest.MonkeyPatch, attention: Attention) -> None:
    """In the place of torch's for everybody."""
    patch.setattr(nn.functional, "scaled_dot_product_attention", attention)


@cache
def usual(name: str) -> tuple[Tensor, int]:
    """With torch's own: the maps, and how many kernels AsynDM takes on the device."""
    with pretend.accelerator() as log:
        there = Told(name, 2, torch.device(pretend.DEVICE), log)
    return pretend.numbers(there.maps), there.kernels[0] - there.kernels[1]


@pytest.mark.parametrize(("put", "kind"), [*((called, kind) for kind in FOREIGN), (instead, "sage")])
@pytest.mark.parametrize("name", LAYERS)
def test_an_attention_that_is_not_torchs(
    name: str, kind: str, put: Callable[[pytest.MonkeyPatch, Attention], None]
) -> None:
    """Its own picture, and the masks that its layers have; they cost a second attention in a transformer's."""
    torchs_maps, torchs_kernels = usual(name)
    with pytest.MonkeyPatch.context() as patch:
        put(patch, FOREIGN[kind])
        here = Told(name, 2)
        with pretend.accelerator() as log:
            there = Told(name, 2, torch.device(pretend.DEVICE), log)
    assert nn.functional.scaled_dot_product_attention is TORCHS
    close(there.answer, here.answer, 1e-6)
    close(there.maps, here.maps, 5e-6)
    # Rounded to 8 bits it answers otherwise, and so the layers behind attend otherwise.
    close(here.maps, torchs_maps, 0.02 if "sage" in kind else 5e-6)
    inside = [e for e in there.asyndm if e.phase == NETWORK]
    assert number(inside, "copy") == number(there.asyndm, "read-back") == 0 and waits(there.asyndm) == []
    more = there.kernels[0] - there.kernels[1]
    assert more <= torchs_kernels + (0 if name == "sdxl" else 30 * LAYERS[name]), (more, torchs_kernels)


# -- numbers at the end of what half precision holds


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_logits(dtype: torch.dtype, scale: float) -> None:
    """The sums over an object's tokens as the fused kernel has them, of queries and keys in half precision."""
    q, k = (normal(2, n, 16, seed=n).mul(scale).to(dtype) for n in (24, 9))
    tokens = torch.zeros(2, 9, 2)
    tokens[:, [1, 2, 6], [0, 1, 1]] = 1
    expected = token_probabilities(q, k, 2, 8**-0.5, tokens)
    values = torch.zeros(2, 9, 8)
    values[..., :2] = VALUE * tokens
    with pretend.accelerator():
        parts = (x.to(pretend.DEVICE, non_blocking=True) for x in (q, k))
        found = fused_probabilities(*parts, 2, 8**-0.5, values.to(dtype).to(pretend.DEVICE, non_blocking=True))
    means = pretend.numbers(found)[..., :2].float().mean(dim=1).transpose(1, 2) / VALUE
    assert torch.isfinite(means).all() and float(expected.max()) > 0.3
    assert float((means - expected).abs().max()) < (1e-3 if dtype == torch.float16 else 6e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_networks_with_large_logits(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    sharp = SMALL[name].build

    def build(full: bool) -> nn.Module:
        network = sharp(full)
        for key, weight in network.named_parameters():
            if any(part in key for part in ("to_q", "to_k", "qkv")):
                weight.data *= 6
        return network

    monkeypatch.setitem(CASES, name, type(SMALL[name])(**{**vars(SMALL[name]), "build": build}))
    with pretend.accelerator() as log:
        there = Told(name, 2, torch.device(pretend.DEVICE), log, dtype)
    maps = pretend.numbers(there.maps)
    assert torch.isfinite(maps).all() and torch.isfinite(pretend.numbers(there.answer)).all()
    assert float(maps.min()) >= 0 and float(maps.max()) <= 1 + 2**-7
    assert float((maps.amax(dim=(-2, -1)) / maps.mean(dim=(-2, -1))).min()) > 1.2, "maps that nothing could tell apart"


# -- texts of several lengths, each in a call of its own


def in_two_calls(name: str, device: torch.device, log: Log) -> tuple[Tensor, Tensor, list[Event]]:
    """The conditional row with a long text, then the other one with a short text, as hosts that do not fill them up."""
    subject = random_subject(name, 1, False, SIDE, device, torch.float32)
    case = CASES[name]
    hooks = NetworkHooks(subject.network, 2, 1)
    told: list[dict[str, Any]] = []
    for tokens, seed in ((2 * case.text, 21), (case.text, 22)):
        one: dict[str, Any] = {"context": normal(1, tokens, case.context, seed=seed).to(device)}
        if case.labels:
            one["y"] = normal(1, case.labels, seed=seed + 10).to(device)
        told.append(one)
    x = normal(1, case.channels, SIDE, SIDE, seed=3).to(device)
    t = torch.full((1,), 600.0, device=device)
    handles = count.phases(subject.network, log)
    with torch.no_grad(), log.during(CALL), hooks.attached():
        for _ in range(2):
            log.clear()
            hooks.begin((SIDE, SIDE))
            answers = []
            for texts, row in zip(told, (TokenRow(0, [[2], [9, 10]]), None), strict=True):
                with hooks.call(of_pixels((SIDE, SIDE), device), [0], [row]):
                    answers.append(subject.network(x, t, **texts))
            maps = hooks.attention()
    for handle in handles:
        handle.remove()
    assert maps is not None
    return torch.cat(answers), maps, list(log.events)


def of_pixels(size: tuple[int, int], device: torch.device) -> TimestepTable:
    t = torch.full((1, 1, *size), 600.0)
    t[..., 4:8, 2:10] = 700.0
    return TimestepTable.from_map(t, 0.25).to(device)


@pytest.mark.parametrize("name", SMALL)
def test_texts_of_several_lengths(name: str) -> None:
    expected, expected_maps, _ = in_two_calls(name, CPU, Log())
    with pretend.accelerator() as log:
        found, maps, events = in_two_calls(name, torch.device(pretend.DEVICE), log)
    close(found, expected, 1e-6)
    close(maps, expected_maps, 5e-6)
    assert number(events, "read-back") == 0
    # A transformer is told how its text lies anew for each call.
    assert [e.place for e in ours(events)] == [] or CASES[name].transformer, log.told("copy")


# -- networks of later years


def ours(events: list[Event]) -> list[Event]:
    """Copies in the network that are not the stand-in's own, which makes its tables of positions on the processor."""
    return [e for e in events if e.kind == "copy" and e.phase == NETWORK and not e.place.startswith("support/")]


def of_kind(name: str, device: torch.device, log: Log) -> tuple[Tensor, Tensor, list[Event], list[Event]]:
    """The answer, the maps, and the events of a second call, with AsynDM and without."""
    made = DiT(name)
    network = deepcopy(made.net).to(device)
    y, text = (one.to(device) for one in made.texts((0, 1)))
    x = normal(2, 4, *SIZE, seed=1).to(device)
    x = x.unsqueeze(2) if made.kind.frames else x
    t = torch.full((2,), 0.6 if made.kind.sigma else 600.0, device=device)
    hooks = NetworkHooks(network, 2, 1)
    handles = count.phases(network, log)
    with torch.no_grad(), log.during(CALL):
        network(x, t, y, text)
        log.clear()
        network(x, t, y, text)
        plain = list(log.events)
        with hooks.attached():
            for _ in range(2):
                log.clear()
                hooks.begin(SIZE)
                with hooks.call(of_pixels(SIZE, device), [0, 0], [None, TokenRow(0, [[2], [3, 4]])]):
                    answer = network(x, t, y, text)
                maps = hooks.attention()
    for handle in handles:
        handle.remove()
    assert maps is not None
    return answer, maps, list(log.events), plain


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_transformer(name: str) -> None:
    expected, expected_maps, _, _ = of_kind(name, CPU, Log())
    with pretend.accelerator() as log:
        answer, maps, events, plain = of_kind(name, torch.device(pretend.DEVICE), log)
    close(answer, expected, 2e-6)
    close(maps, expected_maps, 1e-5)
    assert ours(events) == [], log.told("copy")
    assert number(events, "read-back") == number(plain, "read-back") and len(waits(events)) == len(waits(plain))
    assert number(events, "copy") == number(plain, "copy") + 1
