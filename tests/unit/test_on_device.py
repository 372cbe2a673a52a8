"""On a device of its own: the same pictures, and as few things told to it as the budgets allow.

The device is a pretended one (:mod:`support.pretend`), so what is counted here is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from support import pretend
from support.small import SMALL
from support.tiny import fresh_model, job, random_model
from support.told import Told, close, number, waits
from torch import Tensor

from asyndm_ext.bench import count
from asyndm_ext.bench.cases import CASES
from asyndm_ext.bench.count import NETWORK
from asyndm_ext.bench.counting import Event, Log
from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.job import COUNTED_SOLVERS, Job
from asyndm_ext.model import cross_probabilities
from asyndm_ext.region import mask_image
from asyndm_ext.solvers import SOLVERS

WHOLE = dict(CASES)
# Some labels are one solver.
DISTINCT = sorted({SOLVERS[name].sample: name for name in reversed(COUNTED_SOLVERS)}.values())
STEPS = 9
COPIES = 4
"""To the device in a step, all told; a call more than two takes one more."""


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend.needed()
    for name, case in SMALL.items():
        monkeypatch.setitem(CASES, name, case)


def drawn(model: Any, jobs: Sequence[Job], variant: Any = "asyndm", log: Log | None = None) -> tuple[Tensor, Any]:
    """The latents, and the events of each step."""
    marks = [0]
    latents = run_batch(model, jobs, variant, watch=lambda _: marks.append(len(log.events) if log else 0)).latents
    steps = [log.events[start:end] for start, end in pairwise(marks)] if log else []
    return latents, steps


def apart(one: Tensor, other: Tensor) -> float:
    """In grey levels of the pictures, at most.

    torch adds up in other orders on a device: a picture is not the same to the last bit, and on which pixel's
    rounding that tells depends on the machine.
    """
    return float((random_model().decode(one) - random_model().decode(other)).abs().max()) * 255


SAME = 0.05
"""Grey levels: a tenth of what rounding to bytes takes away at most, and thirty times what was seen."""


# -- pictures, and what a step tells the device


def both(jobs: Sequence[Job], variant: Any = "asyndm") -> tuple[Tensor, Tensor, list[list[Event]]]:
    """The CPU's latents, the device's, and what each of its steps told it."""
    expected, _ = drawn(fresh_model(), jobs, variant)
    for texts in (tuple(one.prompt for one in jobs), ("",) * len(jobs)):
        _encoded(texts)
    with pretend.accelerator() as log:
        model = fresh_model().to(pretend.DEVICE)
        model.encode_prompt = encoded
        found, steps = drawn(model, jobs, variant, log)
    assert found.device.type == pretend.DEVICE
    return expected, pretend.numbers(found), steps


def copies(step: Sequence[Event]) -> list[str]:
    """The lines that asked for a copy to the device; not the noise, which a WebUI has there already."""
    return [e.place for e in step if e.kind == "copy" and not e.place.startswith("embedded/batch.py")]


@cache
def _encoded(texts: tuple[str, ...]) -> Tensor:
    return random_model().encode_prompt(texts)


def encoded(texts: Sequence[str]) -> Tensor:
    """Texts as the CPU has them: torch has ways of its own for their encoders there, which round otherwise."""
    return _encoded(tuple(texts)).to(pretend.DEVICE)


@cache
def calls_of(solver: str) -> int:
    """Model calls in a step in the middle."""
    calls: list[None] = []
    at: list[int] = []
    model = fresh_model()
    model.unet.register_forward_pre_hook(lambda *_: calls.append(None))
    run_batch(model, [job(solver=solver, steps=STEPS)], "asyndm", watch=lambda _: at.append(len(calls)))
    return at[-2] - at[-3]


@pytest.mark.parametrize("solver", DISTINCT)
def test_every_solver(solver: str) -> None:
    jobs = [job(solver=solver, steps=STEPS, seed=seed, width=64, height=96) for seed in (5, 6)]
    expected, found, steps = both(jobs)
    assert apart(found, expected) < SAME
    plain, _ = drawn(fresh_model(), jobs, "plain")
    assert apart(plain, expected) > 20 * SAME, "pictures that show nothing of AsynDM"
    # In the middle of the run: at its beginning tables are made that serve all of it.
    step = steps[-2]
    assert number(step, "read-back") == 1, "the mask"
    assert waits(step) == []
    assert len(copies(step)) <= COPIES + max(calls_of(solver) - 2, 0), copies(step)


def mask() -> str:
    half = Image.new("L", (64, 96))
    half.paste(255, (0, 0, 40, 96))
    return mask_image.encode(half)


REGIONS: dict[str, dict[str, Any]] = {
    "objects": {},
    "four objects": {"objects": ("shark", "red:0.5", "bike", "night:0.2")},
    "mask": {"region": "mask", "objects": (), "mask": mask()},
    "objects or mask": {"region": "objects or mask", "mask": mask()},
    "everything": {"region": "everything", "objects": ()},
    "fixed": {"mask_source": "fixed"},
    "soft": {"soft": True},
    "part of the time": {"start": 0.2, "end": 0.7},
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("region", REGIONS)
def test_every_region(region: str, batch: int) -> None:
    settings, prompt = REGIONS[region], "a shark riding a red bike at night"
    jobs = [job(settings, prompt=prompt, seed=seed, steps=8, width=64, height=96) for seed in range(batch)]
    expected, found, steps = both(jobs)
    assert apart(found, expected) < SAME and float((found - expected).abs().max()) < 1e-4
    reads = 0 if region in ("mask", "everything", "fixed") else 1
    for step in steps[2:-1]:
        assert number(step, "read-back") == reads
        assert waits(step) == [] and len(copies(step)) <= COPIES


# -- the networks of the bench: what is told inside them


@cache
def told(
    name: str, batch: int, dtype: torch.dtype = torch.float32, objects: int = 2, channels_last: bool = False
) -> Told:
    with pretend.accelerator() as log:
        return Told(name, batch, torch.device(pretend.DEVICE), log, dtype, objects, channels_last)


@pytest.mark.parametrize("objects", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", SMALL)
def test_networks(name: str, batch: int, objects: int) -> None:
    there = told(name, batch, objects=objects)
    here = Told(name, batch, objects=objects)
    close(there.answer, here.answer, 1e-6)
    assert there.maps.device.type == pretend.DEVICE and there.maps.shape[:2] == (batch, objects)
    close(there.maps, here.maps, 5e-6)
    spread = here.maps.amax(dim=(-2, -1)) / here.maps.amin(dim=(-2, -1))
    assert float(spread.min()) > 1.02, "maps that nothing could tell apart"
    inside = [e for e in there.asyndm if e.phase == NETWORK]
    assert number(inside, "copy") == number(inside, "read-back") == 0
    assert number(there.asyndm, "read-back") == 0 and waits(there.asyndm) == []
    assert number(there.asyndm, "copy") == 1


@pytest.mark.parametrize("name", SMALL)
def test_kernels_do_not_grow_with_images_and_objects(name: str) -> None:
    alone = told(name, 1).kernels[0] - told(name, 1).kernels[1]
    for batch, objects in ((4, 2), (1, 4), (4, 4)):
        more = told(name, batch, objects=objects)
        assert more.kernels[0] - more.kernels[1] <= alone, (batch, objects)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SMALL)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """The kernels work in the network's dtype there, and add up in float32."""
    there = told(name, 2, dtype)
    exact = Told(name, 2)
    assert there.maps.dtype == torch.float32
    tolerance = 0.02 if dtype == torch.float16 else 0.1
    close(there.maps, exact.maps, tolerance)
    found = pretend.numbers(there.maps).flatten()
    assert (found != found.bfloat16().float()).double().mean() > 0.9, "maps in half precision"
    assert torch.isfinite(pretend.numbers(there.answer)).all()


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_channels_last(name: str) -> None:
    there = told(name, 2, channels_last=True)
    close(there.answer, pretend.numbers(told(name, 2).answer), 1e-5)
    assert there.kernels[0] - there.kernels[1] <= told(name, 2).kernels[0] - told(name, 2).kernels[1]


# -- the budgets, at whole depth

BUDGETS = {"sd21": 1.10, "sdxl": 1.10, "sd3": 1.15, "flux": 1.15}


@cache
def whole(name: str, batch: int, together: bool = True) -> dict[str, Any]:
    """On the meta device, at a small latent: the numbers are of operators, not of pixels.

    Args:
        together: whether there is memory to look at several layers together.
    """
    with pytest.MonkeyPatch.context() as patch:
        for key, case in WHOLE.items():
            patch.setitem(CASES, key, case)
        if not together:
            patch.setattr(cross_probabilities, "_MOST", 0)
        return count.row(name, batch, latent=32)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", BUDGETS)
def test_budgets(name: str, together: bool) -> None:
    one, four = whole(name, 1, together), whole(name, 4, together)
    for row in (one, four):
        assert row["ratio"] <= BUDGETS[name], row
        assert row["copies_in_network"] == 0 and row["waiting_copies"] == 0 and row["read_backs"] == 1, row
        assert row["copies_per_step"] <= COPIES, row
    if together:  # several layers of one image are, where those of four would take too much memory
        assert one["kernels"] < whole(name, 1, together=False)["kernels"]
    else:
        assert four["kernels"] / four["kernels_plain"] <= 1.02 * one["kernels"] / one["kernels_plain"]
