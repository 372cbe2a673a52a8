"""Rows of a table applied to a feature map in place, piece by piece.

A table has tens of rows, a feature map megabytes. Gathered whole, the rows would be a second feature map: on a CPU
most of the time goes into fetching fresh pages for it. A piece that stays in the cache costs a tenth of that
(measured with one thread, float32: 124 ms down to 9 for scale and shift of 2 x 4096 tokens of 1536 channels, 44
down to 9 for what is added to 8 x 320 x 64 x 64). A GPU has no such trouble, and wants few launches: there the rows
are gathered whole, and the network itself adds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from asyndm_ext.machine.costs import works_slowly

_BYTES = 384 * 1024  # per thread: a piece and what is added to it fit into a core's second-level cache
_cache = _BYTES


def measure_cache() -> None:
    """Look how much the threads' caches hold together: not inside a layer, where a compiled network would stop."""
    global _cache  # noqa: PLW0603 (the machine's)
    _cache = _BYTES * torch.get_num_threads()


def fits(size: int, device: torch.device) -> bool:
    """Whether a thing of so many bytes is best made whole."""
    return size <= _cache or not works_slowly(device)


def pieces(count: int, each: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``count`` things of ``each`` bytes, as many at a time as suits the device."""
    step = count
    if works_slowly(device):
        step = max(_cache // max(each, 1), 1)
    return (slice(at, at + step) for at in range(0, count, step))


def in_place(x: Tensor, rows: Tensor) -> bool:
    """Whether ``x`` may be changed where it lies, by numbers of the rows' dtype, without becoming another tensor."""
    return x.is_contiguous() and not x.requires_grad and torch.promote_types(x.dtype, rows.dtype) == x.dtype


def scale_shift(x: Tensor, index: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """``x * scale + shift``, each token with its own rows.

    Args:
        x: tokens ``(N,L,D)``, changed in place where that is possible.
        index: row of each token ``(N*L,)``.
        scale, shift: ``(R,D)``; without a shift, nothing is added.
    """
    if not in_place(x, scale) or not works_slowly(x.device):
        own = scale.index_select(0, index).view(x.shape)
        return x * own if shift is None else torch.addcmul(shift.index_select(0, index).view(x.shape), x, own)
    tokens = x.view(-1, x.shape[-1])
    for part in pieces(len(tokens), x.shape[-1] * x.element_size(), x.device):
        tokens[part].mul_(scale.index_select(0, index[part]))
        if shift is not None:
            tokens[part].add_(shift.index_select(0, index[part]))
    return x


def add_rows(h: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``h + rows``, each pixel with its own row.

    Args:
        h: feature map ``(N,C,h,w)``, changed in place where that is possible.
        index: row of each pixel ``(N*h*w,)``.
        rows: ``(R,C)``.
    """
    if not in_place(h, rows):
        return h + rows_of_pixels(index, rows, h)
    if fits(h.numel() * h.element_size(), h.device):
        return h.add_(rows_of_pixels(index, rows, h))
    n, channels, height, width = h.shape
    pixels, by_channel, index = h.view(n, channels, -1), rows.t().contiguous(), index.view(n, 1, -1).long()
    for part in pieces(channels, n * height * width * h.element_size(), h.device):
        own = by_channel[part]
        picked = own.expand(n, -1, -1).gather(2, index.expand(-1, len(own), -1))
        pixels[:, part].add_(picked)
    return h


def rows_of_pixels(index: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """Each pixel's own row as a feature map ``(N,C,h,w)``, in memory as the one that it is for.

    Args:
        index, rows: as for :func:`add_rows`.
        like: the feature map.
    """
    n, _, height, width = like.shape
    if like.stride(1) == 1 and like.shape[1] > 1:  # the channels of a pixel lie together
        return rows.index_select(0, index).view(n, height, width, -1).permute(0, 3, 1, 2)
    return rows.t().index_select(1, index).view(-1, n, height, width).transpose(0, 1)
