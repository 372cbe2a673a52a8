"""Whatever fails in a generation, in whichever step: afterwards all is as if the generation had never been.

The matrix: every call that a generation makes x every way to fail x first, middle and last step x a solver of each
family. After each: the very error has come out, hooks, functions and switches are as before, no tensor is alive, and
the next plain picture has the bytes of the reference.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

pytest.importorskip("diffusers")

from support.faults import ERRORS, NAN, Fault, Place, Plan
from support.leftovers import state, tensors
from support.tiny import job, random_model

from asyndm_ext.clock.schedule import PixelSchedule
from asyndm_ext.embedded import sampling
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.model import attention, cross_probabilities, unet_time
from asyndm_ext.region.regions import ObjectRegion
from asyndm_ext.run import Run, SentMaps
from asyndm_ext.world.model import WorldModel


class Callbacks:
    """What a host is told: here at the end of each step."""

    @staticmethod
    def on_step() -> None:
        """Nothing, unless a fault stands in for it."""


# A single step, a history, an SDE, timesteps.
SOLVERS = ("Euler", "DPM++ 2M", "DPM++ SDE", "DDIM")
PLACES = (
    Place("text encoder", WorldModel, "encode_prompt"),
    Place("noise", torch, "randn"),
    Place("guided model", GuidedUNet, "__call__"),
    Place("network", type(random_model().unet), "forward"),
    Place("time embedding", unet_time, "timestep_embedding"),
    Place("time conditioning", unet_time, "add_rows"),
    Place("capture", cross_probabilities, "token_probabilities"),
    Place("captured maps", attention.CrossAttentionCapture, "maps"),
    Place("region sees", ObjectRegion, "observe", answers=False),
    Place("region tells", ObjectRegion, "strength"),
    Place("clock", PixelSchedule, "advance"),
    Place("solver", SentMaps, "all_on_device"),
    Place("callback", Callbacks, "on_step", answers=False),
    Place("decode", WorldModel, "decode", answers=False),
)
EACH_STEP = {
    *("guided model", "network", "capture", "captured maps", "region sees", "region tells"),
    *("clock", "solver", "callback"),
}
STEP = (Run, "move")


def picture(solver: str, variant: sampling.Variant = "asyndm", side: int = 64) -> bytes:
    model = random_model()
    drawn = job(solver=solver, width=side, height=side)
    result = sampling.run_variant(model, drawn, variant, Callbacks.on_step)
    return model.decode(result.latent).numpy().tobytes()


@cache
def reference(solver: str, variant: sampling.Variant) -> bytes:
    return picture(solver, variant)


def reached(solver: str, place: Place) -> list[int]:
    """The steps in which a picture calls the place."""
    with Plan(place, STEP).active() as plan:
        picture(solver)
    return plan.reached


def outcome(solver: str, plan: Plan) -> tuple[type[BaseException] | None, str, bytes]:
    """What came out: the class of an error and what it says, or a picture. The error itself would hold on to all that
    was there when it was raised."""
    try:
        with plan.active():
            return None, "", picture(solver)
    except BaseException as error:
        return type(error), str(error), b""


def check(solver: str, place: Place, fault: Fault, at: int) -> None:
    plan = Plan(place, STEP, fault, at)
    with tensors() as alive:
        error, message, drawn = outcome(solver, plan)
    cell = f"{solver}, {place.name}, {fault.name}, step {at}"
    assert plan.fired, cell
    if fault.error is not None:
        assert error is type(fault.error()) and message == str(fault.error()), cell
    elif error is None:  # a number that nobody uses: noise of a solver that adds none, say
        assert drawn == reference(solver, "asyndm"), cell
    else:
        assert error is RuntimeError and "not finite" in message, cell
    assert not alive, f"{cell}: {dict(alive)}"


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
@pytest.mark.parametrize("solver", SOLVERS)
def test_matrix(solver: str, place: Place) -> None:
    plain = reference(solver, "plain")
    before = state(random_model())
    steps = reached(solver, place)
    assert steps[:3] == [0, 1, 2] or place.name not in EACH_STEP
    assert steps, "a place that is never called tests nothing"
    for fault in (NAN, *ERRORS) if place.answers else ERRORS:
        for at in steps:
            check(solver, place, fault, at)
            after = state(random_model())
            assert [key for key in before if after[key] != before[key]] == [], (fault.name, at)
        assert picture(solver, "plain") == plain, fault.name
    assert picture(solver) == reference(solver, "asyndm")


def test_out_of_memory_then_a_smaller_picture() -> None:
    large, small = 128, 64
    expected = picture("Euler", side=small)
    network = next(place for place in PLACES if place.name == "network")
    out_of_memory = next(fault for fault in ERRORS if fault.name.startswith("out of memory"))
    with Plan(network, STEP, out_of_memory, 1).active(), pytest.raises(torch.cuda.OutOfMemoryError):
        picture("Euler", side=large)
    assert picture("Euler", side=small) == expected
