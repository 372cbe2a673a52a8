"""Smoothed energy guidance, SEG (Hong 2024, arXiv 2408.00760), together with classifier-free guidance.

In the middle of the network the queries of a third row are blurred, so that every pixel of it looks at the picture as
its neighbours do; the answer is led away from that row's::

    e = e_c + (w - 1) (e_c - e_u) + s (e_c - e_s)

The third row has the prompt of the guided one. It makes a step half as dear again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asyndm_ext.model.transformers.mmdit import is_mmdit
from asyndm_ext.rivals.guidance import Part, Row

_WITHOUT_END = 9999.0
_MIDDLE = ("mid_block", "middle_block")
_JOINT = (7, 3, 24)
"""Of an MMDiT: the first block and how many, of so many."""


class SEG:
    """See above (:class:`asyndm_ext.rivals.guidance.Guidance`).

    Args:
        network: a UNet, or an MMDiT.
        guidance: CFG scale w.
        scale: s.
        blur: standard deviation in cells of the attention's grid; infinite, as SEG's authors have it: every query
            becomes their mean.
    """

    parts: tuple[Part, ...] = ("uncond", "cond", "perturbed")

    def __init__(self, network: nn.Module, guidance: float, scale: float, blur: float) -> None:
        self._guidance, self._scale = guidance, scale
        self._blur = QueryBlur(network, blur)

    def attached(self) -> Any:
        return self._blur.attached()

    def begin(self, latent_size: tuple[int, int]) -> None:
        self._blur.size = latent_size

    def read(self, rows: Sequence[Row | None]) -> None:
        self._blur.rows = [number for number, row in enumerate(rows) if row is not None and row.part == "perturbed"]

    def combine(self, uncond: Tensor, cond: Tensor, perturbed: Tensor | None = None) -> Tensor:
        assert perturbed is not None
        return cond + (self._guidance - 1) * (cond - uncond) + self._scale * (cond - perturbed)


class QueryBlur:
    """Blurs the queries of the self-attention in the middle of a network, in chosen rows.

    Of a UNet that is the middle block's. Of an MMDiT, whose attention is joint, these are the picture's queries in
    three blocks as deep as diffusers' 7, 8 and 9 of SD3.5 medium's 24.

    Attributes:
        size: of the latent, ``(H, W)``.
        rows: of the network's batch; empty: nothing is touched.
        calls: in how many attentions it did so since it was attached.

    Raises:
        ValueError: the network has no such attention.
    """

    def __init__(self, network: nn.Module, sigma: float) -> None:
        self._sigma = sigma
        self._layers: list[Any]
        if is_mmdit(network):
            blocks = list[Any](network.joint_blocks)  # type: ignore[arg-type]
            first = round(len(blocks) * _JOINT[0] / _JOINT[2])
            self._layers = [block.x_block.attn.qkv for block in blocks[first : first + _JOINT[1]]]
        else:
            self._layers = [
                module.to_q
                for name, module in network.named_modules()
                if any(f"{middle}." in name for middle in _MIDDLE)
                and name.rsplit(".", 1)[-1] == "attn1"
                and hasattr(module, "to_q")
            ]
        self._share = 3 if is_mmdit(network) else 1
        if not self._layers:
            raise ValueError(f"{type(network).__name__} has no self-attention in its middle that SEG could blur")
        self.size = (0, 0)
        self.rows: Sequence[int] = ()
        self.calls = 0

    @contextmanager
    def attached(self) -> Iterator[QueryBlur]:
        handles = [layer.register_forward_hook(self._on_query) for layer in self._layers]
        self.calls = 0
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.rows = ()

    def _on_query(self, module: nn.Module, args: tuple, q: Tensor) -> Tensor | None:
        if not self.rows:
            return None
        grid = grid_of(q.shape[1], self.size)
        q = q.clone()
        rows, width = list(self.rows), q.shape[-1] // self._share  # queries come before keys and values
        q[rows, :, :width] = blurred(q[rows, :, :width], grid, self._sigma)
        self.calls += 1
        return q


def grid_of(cells: int, latent_size: tuple[int, int]) -> tuple[int, int]:
    """The feature map's ``(h, w)`` that has so many cells, each a halving of the latent, rounded up.

    Raises:
        ValueError: there is none: another extension has changed the number of tokens.
    """
    h, w = latent_size
    while h * w > cells:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != cells:
        raise ValueError(f"an attention over {cells} cells fits no halving of a latent of {latent_size}")
    return h, w


def blurred(q: Tensor, grid: tuple[int, int], sigma: float) -> Tensor:
    """Queries ``(N,h*w,D)``, each channel blurred over the grid; reflected at the edges."""
    if sigma > _WITHOUT_END:
        return q.mean(dim=1, keepdim=True).expand_as(q)
    if sigma <= 0:
        return q
    cells = q.float().transpose(1, 2).unflatten(-1, grid)
    for axis in (-2, -1):
        cells = _along(axis, cells, kernel(sigma, cells.shape[axis]))
    return cells.flatten(2).transpose(1, 2).to(q.dtype)


def kernel(sigma: float, side: int) -> Tensor:
    """A Gaussian over six standard deviations, an odd number of cells, no more than there are; its sum is 1."""
    wide = math.ceil(6 * sigma) + 1
    wide = min(wide + (wide + 1) % 2, side - (side + 1) % 2)
    x = torch.arange(wide) - wide // 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def _along(axis: int, cells: Tensor, weights: Tensor) -> Tensor:
    """Convolves ``(N,D,h,w)`` along one of the last two axes."""
    half, shape = len(weights) // 2, [1, 1, 1, 1]
    shape[axis] = len(weights)
    pad = (0, 0, half, half) if axis == -2 else (half, half, 0, 0)
    n, d = cells.shape[:2]
    padded = F.pad(cells.flatten(0, 1).unsqueeze(1), pad, mode="reflect")
    return F.conv2d(padded, weights.to(cells).view(shape)).view(n, d, *cells.shape[-2:])
