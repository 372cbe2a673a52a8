"""On a real device: the CPU's numbers, what waits for the device, and the launches that a profiler sees.

    python -m tests.gpu.on_device --device cuda --json checks.json

For :file:`tests/gpu/run.sh`. Needs torch alone. Ends with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.bench.cases import CASES, texts
from asyndm_ext.bench.guided import Host, PixelModel
from asyndm_ext.bench.subjects import Subject, random_subject
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import PerPatch
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS

CPU = torch.device("cpu")
STEPS = 8
TOLERANCE = 2e-3
"""Between two devices in float32, of the largest number: their kernels add up in other orders."""
SIDE = 16


@contextmanager
def syncs(device: torch.device, mode: str) -> Iterator[None]:
    """ "error": whatever waits for the device stops; "warn": it is told."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Watched:
    """The model, in which nothing waits once it has been called twice (kernels and tables are chosen then)."""

    def __init__(self, model: PixelModel, device: torch.device) -> None:
        self._model, self._device = model, device
        self.calls = 0

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.calls += 1
        with syncs(self._device, "error" if self.calls > 2 else "default"):
            return self._model(x, nominal, level)

    def attention(self) -> Tensor | None:
        with syncs(self._device, "error" if self.calls > 2 else "default"):
            return self._model.attention()


def moved(subject: Subject, device: torch.device) -> Subject:
    """The same network and numbers elsewhere."""
    case = CASES[subject.name]
    network = deepcopy(subject.network).to(device)
    told = texts(case, len(subject.x), device, torch.float32)
    host = Host(lambda x, t: network(x, t, **told), case.kind, subject.host.table, subject.host.guidance, torch.float32)
    model = PixelModel(host, network, subject.columns)
    return replace(subject, host=host, network=network, model=model, x=subject.x.to(device))


def sampled(subject: Subject, solver: str, watch: bool) -> tuple[Tensor, list[int]]:
    """The latent, and how often each step but the first two waited."""
    device = subject.x.device
    model: Any = Watched(subject.model, device) if watch else subject.model  # type: ignore[arg-type]
    waits: list[int] = []

    def steps(numbers: range) -> Iterator[int]:
        for number in numbers:
            if not watch or number < 2:
                yield number
                continue
            with warnings.catch_warnings(record=True) as told, syncs(device, "warn"):
                warnings.simplefilter("always")
                yield number
            waits.append(sum("synchroniz" in str(one.message) for one in told))

    levels = torch.cat([subject.sigmas[4 : 4 + STEPS], subject.sigmas[-1:]])
    region = subject.region(subject.shape)
    with torch.no_grad(), subject.model.attached():
        run = Run(
            model,
            PixelSchedule(BaseSchedule.from_sigmas(levels), subject.shape, "quadratic"),
            PerPatch(region) if subject.transformer else region,
            subject.x,
            FromHost(flow=subject.transformer, table=subject.host.table, progress=steps),
        )
        return SOLVERS[solver].sample(run, subject.x), waits


def small(name: str, device: torch.device) -> dict[str, Any]:
    """Numbers and waits of the network cut in depth, in float32."""
    subject = random_subject(name, 2, False, SIDE, CPU, torch.float32)
    found: dict[str, Any] = {"model": name}
    there = moved(subject, device)
    for solver in ("Euler", "Heun"):
        expected, _ = sampled(subject, solver, watch=False)
        answer, waits = sampled(there, solver, watch=True)
        difference = float((answer.cpu() - expected).abs().max() / expected.abs().max())
        found[solver] = {"difference": difference, "waits": waits}
        if not difference < TOLERANCE:
            found["failed"] = f"{solver}: differs from the CPU by {difference}"
        if device.type == "cuda" and max(waits) > 1:
            found["failed"] = f"{solver}: a step waits for the device {max(waits)} times"
    return found


def launches(work: Callable[[], object]) -> int:
    """Kernels of a second call, as torch's profiler counts them."""
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    return sum(one.count for one in seen.key_averages() if "LaunchKernel" in one.key)


def whole(name: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Launches of a model call at whole depth in float16, plain and with AsynDM."""
    subject = random_subject(name, batch, True, 64, device, torch.float16)
    nominal = float(subject.sigmas[8])
    level = torch.full(subject.shape, nominal, dtype=torch.float64)
    level[..., 16:40, 8:48] *= 1.1
    level[0, :, :8] *= 1.05
    with torch.no_grad():
        plain = launches(lambda: subject.host.plain(subject.x, nominal))
        with subject.model.attached():
            asyndm = launches(lambda: (subject.model(subject.x, nominal, level), subject.model.attention()))
    return {"model": name, "batch": batch, "launches": asyndm, "plain": plain, "ratio": round(asyndm / plain, 3)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json")
    options = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    on_cuda = options.device.type == "cuda"
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(options.device) if on_cuda else str(options.device),
        "torch": torch.__version__,
    }

    def tried(kind: str, work: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        try:
            found = work(*arguments, options.device)
        except Exception as error:  # the other checks are worth having
            traceback.print_exc()
            found = {"model": arguments[0], "failed": repr(error)}
        print(kind, json.dumps(found), flush=True)
        results.setdefault(kind, []).append(found)

    for name in options.models:
        tried("numbers", small, name)
    if on_cuda:
        for name in options.models:
            for batch in (1, 4):
                tried("launches", whole, name, batch)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
    failed = [one for kind in ("numbers", "launches") for one in results.get(kind, []) if "failed" in one]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
