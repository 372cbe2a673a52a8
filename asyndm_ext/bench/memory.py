"""How much memory a piece of work has in use at most, beyond what was there before it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_PROFILERS = (b"CPUAllocator.cpp", b"ActivityProfiler")


@dataclass(frozen=True)
class Peak:
    """Attributes: step: bytes of tensors at the highest point, above those at the start."""

    step: int


@contextmanager
def watched(device: torch.device) -> Iterator[Callable[[], Peak]]:
    """Watch the tensors made inside the block; what is handed out tells the peak after it.

    On a GPU its allocator counts. On the CPU the profiler lists every piece that is taken and given back, which unlike
    the memory of the process depends on nothing else.
    """
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: Peak(found[0])
        torch.cuda.synchronize(device)
        found.append(torch.cuda.max_memory_allocated(device) - before)
        return
    profiled = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _quiet_profiler():
        profiled.start()
        try:
            yield lambda: Peak(found[0])
        finally:
            profiled.stop()
    found.append(highest([e.nbytes() for e in _pieces(profiled)]))


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler says on the process's own stderr that it starts and stops, and that it does not know the pieces that
    were there before. Whatever else is said there meanwhile is said afterwards."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        try:
            os.dup2(said.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            for line in said:
                if not any(word in line for word in _PROFILERS):
                    os.write(2, line)


def _pieces(profiled: profile) -> list:
    results: Any = profiled.profiler.kineto_results  # type: ignore[union-attr]
    pieces = [e for e in results.events() if e.name() == "[memory]"]
    # torch before 2.4 counts in microseconds only
    return sorted(pieces, key=lambda e: e.start_ns() if hasattr(e, "start_ns") else e.start_us())


def highest(changes: list[int]) -> int:
    """The highest point of a sum of bytes taken (positive) and given back (negative), at least 0."""
    at = peak = 0
    for change in changes:
        at += change
        peak = max(peak, at)
    return peak
