"""What AsynDM adds to one layer, beside what the layer itself takes: milliseconds of processor time, one thread.

    python tests/speed_of_parts.py

Each line: the network's own work, and what is added to it, the way it is done and the plain way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from asyndm_ext.model.pieces import add_rows, picked_rows, scale_shift
from asyndm_ext.model.softmax_sum import fused_kernel, key_probabilities
from asyndm_ext.model.token_attention import indicator, joint_probabilities

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
        added=lambda: add_rows(h, index, rows),
        plain=lambda: h + picked_rows(index, rows, (side, side)),
    )


def attention(heads: int, text: int, image: int, width: int) -> dict[str, float]:
    """Probabilities of three tokens, beside the joint attention of one row."""
    q, k, v = (torch.randn(1, text + image, heads, width).transpose(1, 2) for _ in range(3))
    kernel = fused_kernel(q, k, v)
    if kernel is None:
        raise SystemExit("this torch has no fused attention on the CPU that tells its sum")
    log_sums, columns = kernel(q, k, v)[1], [2, 5, 6]
    values = indicator([[2], [5, 6]], text + image, width)
    return milliseconds(
        layer=lambda: functional.scaled_dot_product_attention(q, k, v),
        added=lambda: key_probabilities(q[0, :, text:], k[0][:, columns], log_sums[0, :, text:]),
        plain=lambda: joint_probabilities(q[0, :, text:], k[0], values),
    )


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    print("tokens, 2 x 1024 x 1536  ", tokens(2, 1024, 1536), flush=True)
    print("tokens, 1 x 4096 x 3072  ", tokens(1, 4096, 3072), flush=True)
    print("pixels, 2 x 320 x 64 x 64", pixels(2, 320, 64), flush=True)
    print("pixels, 8 x 320 x 64 x 64", pixels(8, 320, 64), flush=True)
    print("attention, 24 heads of 64, 154 + 1024 tokens", attention(24, 154, 1024, 64), flush=True)


if __name__ == "__main__":
    main()
