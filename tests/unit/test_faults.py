"""Whatever fails in a generation, in whichever step: afterwards all is as if the generation had never been.

The matrix: every call that a generation makes x every way to fail x first, middle and last step x a solver of each
family. After each: the very error comes out, hooks, functions and switches are as before, no tensor is alive, and the
next plain picture has the bytes of the reference.
"""

from __future__ import annotations

import traceback
from collections import Counter
from functools import cache

import pytest
import torch
from support.faults import ERRORS, NAN, Fault, Place, Plan
from support.leftovers import state, tensors
from support.tiny import job, random_model

pytest.importorskip("diffusers")

from asyndm_ext.embedded import sampling
from asyndm_ext.embedded.model import TinyModel
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.model import attention, unet_time
from asyndm_ext.regions import ObjectRegion
from asyndm_ext.run import Run
from asyndm_ext.schedule import PixelSchedule

# One each of: single-step, multistep, SDE, timesteps.
SOLVERS = ("Euler", "DPM++ 2M", "DPM++ SDE", "DDIM")
PLACES = (
    Place("text encoder", TinyModel, "encode_prompt"),
    Place("noise", torch, "randn"),
    Place("guided model", GuidedUNet, "__call__"),
    Place("network", type(random_model().unet), "forward"),
    Place("time embedding", unet_time, "timestep_embedding"),
    Place("time conditioning", unet_time.UNetTimeConditioning, "_gather"),
    Place("capture", attention, "token_probabilities"),
    Place("captured maps", attention.CrossAttentionCapture, "maps"),
    Place("region sees", ObjectRegion, "observe", answers=False),
    Place("region tells", ObjectRegion, "strength"),
    Place("clock", PixelSchedule, "advance"),
    Place("solver", Run, "advance"),
    Place("callback", sampling.StepRecord, "__init__", answers=False),
    Place("decode", TinyModel, "decode", answers=False),
)
STEP = (Run, "advance")
# Where the maps differ from pixel to pixel; the first and the last step are made together.
INSIDE_ONLY = {"time embedding", "time conditioning"}


def picture(solver: str, variant: sampling.Variant = "asyndm", side: int = 64) -> bytes:
    model = random_model()
    result = sampling.run_variant(model, job(solver=solver, width=side, height=side), variant)
    return model.decode(result.latent).numpy().tobytes()


@cache
def reference(solver: str, variant: sampling.Variant) -> bytes:
    return picture(solver, variant)


@cache
def reached(solver: str, place: Place) -> list[int]:
    with Plan(place, STEP).active() as plan:
        picture(solver)
    return plan.reached


def fails(solver: str, place: Place, fault: Fault, at: int) -> tuple[Plan, type[BaseException] | None, str]:
    """Run it; nothing of the error is kept but its class and what it says."""
    plan = Plan(place, STEP, fault, at)
    try:
        with plan.active():
            picture(solver)
    except BaseException as error:
        return plan, type(error), "".join(traceback.format_exception_only(error))
    return plan, None, ""
