"""Faults inside the networks' hooks: UNets of both layouts, SD3, SD3.5, Flux and Chroma.

A run of three model calls, each with a map of timesteps and the attention of two objects. Whatever raises in whichever
of the calls: no hook, no exchanged function and no tensor is left, and the network's next answer has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from support.anima import Anima
from support.chroma import Chroma
from support.faults import ERRORS, NAN, Fault, Place, Plan
from support.flux import Flux
from support.flux2 import Flux2
from support.ldm_unet import LdmUNet
from support.leftovers import state, tensors
from support.mmdit import MMDiT
from support.nextdit import NextDiT
from support.qwen_image import QwenImage
from torch import Tensor, nn

from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.model import attention, dit_time, token_attention, token_modulation, token_rows, unet_time
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.region.regions import checked

SIZE, CALLS = (12, 16), (0, 1, 2)
TOKENS = [None, TokenRow(0, [[2], [3, 4]])]


@dataclass(frozen=True)
class Network:
    make: Callable[[], nn.Module]
    sigma: bool = False
    objects: int = 2
    frames: bool = False


NETWORKS = {
    "ldm": Network(LdmUNet, objects=0),
    "sd3": Network(MMDiT),
    "sd35": Network(lambda: MMDiT(dual=True, normed=True)),
    "flux": Network(Flux, sigma=True),
    "flux, modulations per token": Network(lambda: Flux(flat=False), sigma=True),
    "chroma": Network(Chroma, sigma=True),
    "flux2": Network(Flux2, sigma=True),
    "z-image": Network(lambda: NextDiT(z_image=True), sigma=True),
    "lumina 2": Network(lambda: NextDiT(z_image=False), sigma=True),
    "qwen-image": Network(QwenImage, sigma=True, frames=True),
    "anima": Network(Anima, sigma=True, frames=True),
}
UNET = (
    Place("time embedding", unet_time, "timestep_embedding"),
    Place("projection", unet_time.UNetTimeConditioning, "_embedding_rows", answers=False),
    Place("gather", unet_time.UNetTimeConditioning, "_gather_index", answers=False),
    Place("rows are added", unet_time, "rows_of_pixels"),
)
OUTSIDE = (
    Place("modulation is given", token_modulation.TokenModulations, "give", answers=False),
    Place("token's modulation", token_modulation, "scale_shift"),
)
HANDED_OVER = (
    Place("modulation is given", token_modulation.TokenModulations, "stand_in", answers=False),
    Place("token's modulation", token_rows.RowTable, "gathered"),
)
TRANSFORMER = (
    Place("time embedding", dit_time, "timestep_embedding"),
    Place("attention is held", token_attention.TokenAttentionCapture, "_take", answers=False),
    Place("attention is read", token_attention, "key_probabilities"),
    Place("attention is added", attention.AttentionCapture, "_add", answers=False),
)
PLACES = {"ldm": UNET, "chroma": (*OUTSIDE, *TRANSFORMER), "anima": (*OUTSIDE, *TRANSFORMER)}
CELLS = [(name, place) for name in NETWORKS for place in PLACES.get(name, (*HANDED_OVER, *TRANSFORMER))]


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name].make().eval().requires_grad_(False)


def inputs(name: str) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    x, y, text = (torch.randn(2, *shape, generator=draw) for shape in ((4, *SIZE), (10,), (7, 12)))
    t = torch.full((2,), 0.6 if NETWORKS[name].sigma else 600.0)
    x = x.unsqueeze(2) if NETWORKS[name].frames else x
    return (x, t) if name == "ldm" else (x, t, y, text)


def plain(name: str) -> Tensor:
    return network(name)(*inputs(name))


def table() -> TimestepTable:
    t = torch.full((1, 1, *SIZE), 600.0)
    t[..., 4:8, 2:10] = 700.0
    return TimestepTable.from_map(t, 0.25)


class Step:
    """Ends a call of the run."""

    @staticmethod
    def end() -> None: ...


def run(name: str) -> Tensor:
    """The last call's answer."""
    hooks = NetworkHooks(network(name), NETWORKS[name].objects, 1)
    tokens = TOKENS if NETWORKS[name].objects else []
    with hooks.attached():
        for _ in CALLS:
            hooks.begin(SIZE)
            with hooks.call(table(), [0, 0], tokens):
                answer = plain(name)
            if NETWORKS[name].objects:
                checked(hooks.attention())
            if not bool(torch.isfinite(answer).all()):
                raise RuntimeError("the answer is not finite")
            Step.end()
    return answer


def outcome(name: str, plan: Plan) -> tuple[type[BaseException] | None, str]:
    try:
        with plan.active():
            run(name)
    except BaseException as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.parametrize(("name", "place"), CELLS, ids=[f"{name}, {place.name}" for name, place in CELLS])
def test_matrix(name: str, place: Place) -> None:
    expected, with_map = plain(name), run(name)
    assert not torch.equal(expected, with_map)
    before = state(network(name))
    for fault in (NAN, *ERRORS) if place.answers else ERRORS:
        for at in CALLS:
            plan = Plan(place, (Step, "end"), fault, at)
            with tensors() as alive:
                error, message = outcome(name, plan)
            assert plan.fired, (fault.name, at)
            if fault.error is not None:
                assert (error, message) == (type(fault.error()), str(fault.error())), (fault.name, at)
            else:
                assert error is RuntimeError and "finite" in message, at
            assert not alive, (fault.name, at, dict(alive))
        after = state(network(name))
        assert [key for key in before if after[key] != before[key]] == [], fault.name
    assert torch.equal(plain(name), expected)
    assert torch.equal(run(name), with_map)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "ldm"])
def test_hooks_that_come_half_way(name: str) -> None:
    """Out of memory, or an older torch, while the hooks are put on: those that are there go again."""
    before = state(network(name))
    hooks = NetworkHooks(network(name), 2, 1)
    failing = Fault("half way", lambda: MemoryError("fault"))
    place = Place("registering", nn.Module, "register_forward_hook", answers=False)
    plan = Plan(place, (Step, "end"), failing, 0)
    for skipped in (0, 1, 5):
        plan.fired, plan.skip = False, skipped
        with plan.active(), pytest.raises(MemoryError), hooks.attached():
            pytest.fail("the hooks are on")
        after = state(network(name))
        assert [key for key in before if after[key] != before[key]] == [], skipped
