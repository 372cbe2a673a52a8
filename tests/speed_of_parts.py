"""What AsynDM adds to one layer, beside what the layer itself takes: milliseconds of processor time, one thread.

    python tests/speed_of_parts.py               # layers
    python tests/speed_of_parts.py --dispatch    # a model call with next to no numbers in it: what a fast GPU waits for
    python tests/speed_of_parts.py --between     # what is done between two model calls

Each line of the first: the network's own work, and what is added to it, the way it is done and the plain way.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import torch
from torch.nn import functional

from asyndm_ext.bench.cases import CASES, sd_table, sigmas
from asyndm_ext.bench.dit import DiTShape, Flux, MMDiT
from asyndm_ext.bench.subjects import random_subject
from asyndm_ext.bench.unet import UNet, UNetShape
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.machine.costs import as_on_a_gpu
from asyndm_ext.model.pieces import add_rows, rows_of_pixels, scale_shift
from asyndm_ext.model.second_attention import indicator, joint_probabilities
from asyndm_ext.model.softmax_sum import fused_kernel, key_probabilities
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform
from asyndm_ext.model.unet_time import UNetTimeConditioning
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.region.regions import region_for
from asyndm_ext.settings import Settings

ROWS = 40  # distinct timesteps of an image
REPEATS = 5


def milliseconds(**works: Callable[[], object]) -> dict[str, float]:
    """Median of each, in turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS + 1):  # the first one is left out: memory is fetched then
        for name, work in works.items():
            began = time.process_time()
            work()
            found[name].append(1000 * (time.process_time() - began))
    return {name: round(statistics.median(times[1:]), 1) for name, times in found.items()}


def tokens(images: int, count: int, width: int) -> dict[str, float]:
    """Scale and shift of tokens, beside the linear layer of queries, keys and values that they enter."""
    x, layer = torch.randn(images, count, width), torch.nn.Linear(width, 3 * width)
    scale, shift = torch.ones(images * ROWS, width), torch.zeros(images * ROWS, width)
    index = torch.randint(0, images * ROWS, (images * count,))
    return milliseconds(
        layer=lambda: layer(x),
        added=lambda: scale_shift(x, index, scale, shift),
        plain=lambda: x * scale[index].view(x.shape) + shift[index].view(x.shape),
    )


def pixels(images: int, channels: int, side: int) -> dict[str, float]:
    """What is added to a feature map, beside the 3x3 convolution that makes it."""
    h, layer = torch.randn(images, channels, side, side), torch.nn.Conv2d(channels, channels, 3, padding=1)
    rows, index = torch.zeros(ROWS, channels), torch.randint(0, ROWS, (images, side * side))
    return milliseconds(
        layer=lambda: layer(h),
        added=lambda: add_rows(h, index.flatten(), rows),
        plain=lambda: h + rows_of_pixels(index.flatten(), rows, h),
    )


def attention(heads: int, text: int, image: int, width: int) -> dict[str, float]:
    """Probabilities of three tokens, beside the joint attention of one row."""
    q, k, v = (torch.randn(1, text + image, heads, width).transpose(1, 2) for _ in range(3))
    kernel = fused_kernel(q, k, v)
    if kernel is None:
        raise SystemExit("this torch has no fused attention on the CPU that tells its sum")
    log_sums, columns = kernel(q, k, v)[1], [2, 5, 6]
    values = indicator([[2], [5, 6]], text + image, width)[None]
    return milliseconds(
        layer=lambda: functional.scaled_dot_product_attention(q, k, v),
        added=lambda: key_probabilities(q[0, :, text:], k[0][:, columns], log_sums[0, :, text:]),
        plain=lambda: joint_probabilities(q[:, :, text:], k, values),
    )


WHOLE: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "sd21": (lambda: UNet(UNetShape(32, (1, 2, 4, 4), (1, 1, 1, 0), 2, context=16, head=16)), 0),
    "sdxl": (lambda: UNet(UNetShape(32, (1, 2, 4), (0, 2, 10), 2, context=16, head=16, labels=16)), 16),
    "sd3": (lambda: MMDiT(DiTShape(16, 2, 24, 16, 16)), 16),
    "flux": (lambda: Flux(DiTShape(16, 2, 19, 16, 16, singles=38, axes=(2, 2, 4))), 16),
}
"""Whole depth and next to no width; width of the labels."""


def dispatch(name: str, batch: int) -> dict[str, float]:
    """A model call, plain and with AsynDM, and their ratio; told as on a GPU."""
    build, labels = WHOLE[name]
    case = replace(CASES[name], build=lambda full: build(), context=16, labels=labels, text=8)
    CASES[name] = case
    subject = random_subject(name, batch, True, 16, torch.device("cpu"), torch.float32)
    nominal = float(subject.sigmas[8])
    level = torch.full(subject.shape, nominal, dtype=torch.float64)
    level[..., 4:8, 2:12] *= 1.1

    def asyndm() -> None:
        with_map(subject.x, nominal, level + 0)  # a map of its own for each step
        with_map.attention()

    with_map = subject.model
    found: dict[str, list[float]] = {"plain": [], "asyndm": []}
    for turn in range(2 * REPEATS + 1):
        for key, work in (("plain", lambda: subject.host.plain(subject.x, nominal)), ("asyndm", asyndm)):
            with as_on_a_gpu(), subject.model.attached() if key == "asyndm" else nullcontext():
                if key == "asyndm":
                    work()  # what is chosen and made once in a run
                began = time.process_time()
                work()
                if turn:
                    found[key].append(1000 * (time.process_time() - began))
    plain, ours = (statistics.median(found[key]) for key in ("plain", "asyndm"))
    return {"plain": round(plain, 1), "asyndm": round(ours, 1), "ratio": round(ours / plain, 3)}


def between(side: int, batch: int) -> dict[str, float]:
    """Mask, clock, level map, table of timesteps and indices of a step: what the processor has to do before the network
    can go on; Euler's own arithmetic is left out."""
    table = sd_table()
    base = BaseSchedule.from_sigmas(sigmas("eps", table, 20))
    shape = (batch, 1, side, side)
    settings = Settings(enabled=True, objects=parse_objects("red circle, blue square:0.4"))
    region = region_for(settings, shape, [0.7, 0.4])
    clock = PixelSchedule(base, shape, "quadratic")
    maps = [torch.rand(batch, 2, side // 4, side // 4) for _ in range(12)]
    time_of = UNetTimeConditioning(WHOLE["sd21"][0]())
    parts: dict[str, list[float]] = {"mask": [], "clock": [], "tables": []}
    rows = [*range(batch)] * 2
    for step, seen in enumerate(maps):
        marks = [time.process_time()]
        region.observe(seen, step / 20)
        strength = region.strength(step / 20)
        marks.append(time.process_time())
        level = clock.advance(strength)
        marks.append(time.process_time())
        is_uniform(level)
        of_pixels = TimestepTable.from_map(level, QUANTUM, table.sigma_to_t)
        time_of.use(of_pixels, rows, [level.float().index_select(0, torch.tensor(rows))])
        for size in (side, side // 2, side // 4, side // 8):
            time_of._gather_index(size, size)
        time_of.use(None, ())
        marks.append(time.process_time())
        for part, (start, end) in zip(parts.values(), pairwise(marks), strict=True):
            part.append(1000 * (end - start))
    found = {name: statistics.median(times[2:]) for name, times in parts.items()}
    return {name: round(ms, 2) for name, ms in {**found, "together": sum(found.values())}.items()}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    if "--dispatch" in sys.argv:
        for name in WHOLE:
            for batch in (1, 4):
                print(f"{name}, batch {batch}", dispatch(name, batch), flush=True)
        return
    if "--between" in sys.argv:
        for side, batch in ((64, 1), (128, 1), (128, 4)):
            print(f"{side}x{side}, batch {batch}", between(side, batch), flush=True)
        return
    print("tokens, 2 x 1024 x 1536  ", tokens(2, 1024, 1536), flush=True)
    print("tokens, 1 x 4096 x 3072  ", tokens(1, 4096, 3072), flush=True)
    print("pixels, 2 x 320 x 64 x 64", pixels(2, 320, 64), flush=True)
    print("pixels, 8 x 320 x 64 x 64", pixels(8, 320, 64), flush=True)
    print("attention, 24 heads of 64, 154 + 1024 tokens", attention(24, 154, 1024, 64), flush=True)


if __name__ == "__main__":
    main()
