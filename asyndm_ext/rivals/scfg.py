"""S-CFG, semantic-aware guidance (Shen et al. 2024, arXiv 2404.05384): as much guidance for every word's part.

The picture falls into the words' parts M_i, and the foreground M_fg. With ``n = |e_c - e_u|`` over the channels of a
pixel, and m the mean of n over a mask::

    rate = sum_i (m_fg / m_i) M_i,   in [0.8, 3] and at most 15 / w,   smoothed
    e    = e_u + w * rate * (e_c - e_u)

So a part that the prompt moves little is guided more. The answers are taken as noise: under a level map the same
difference in another unit would weigh the pixels differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.transformers.mmdit import is_mmdit
from asyndm_ext.region.grid import enlarge
from asyndm_ext.rivals.guidance import Part, Row
from asyndm_ext.rivals.semantic import HALVINGS, Masks, SemanticMaps, WordMaps, smoothed
from asyndm_ext.rivals.semantic_joint import JointMaps

LEAST, MOST, CEILING = 0.8, 3.0, 15.0
"""The authors': limits of the rate, and of w times the rate."""


class SCFG:
    """See above (:class:`asyndm_ext.rivals.guidance.Guidance`).

    Args:
        network: a UNet, or an MMDiT.
        guidance: CFG scale w.
        images: number of images in the batch.
        published: read the attention as the authors' program does; see :class:`SemanticMaps`.
        halvings: where it is read; see there.
    """

    parts: tuple[Part, ...] = ("uncond", "cond")

    def __init__(
        self, network: nn.Module, guidance: float, images: int, published: bool = False, halvings: int = HALVINGS
    ) -> None:
        self._guidance = guidance
        self._maps: WordMaps
        if is_mmdit(network):
            self._maps = JointMaps(network, images, published)
        else:
            self._maps = SemanticMaps(network, images, published, halvings)

    def attached(self) -> AbstractContextManager[Any]:
        return self._maps.attached()

    def begin(self, latent_size: tuple[int, int]) -> None:
        self._maps.begin(latent_size)

    def read(self, rows: Sequence[Row | None]) -> None:
        self._maps.read(rows)

    def combine(self, uncond: Tensor, cond: Tensor, perturbed: Tensor | None = None) -> Tensor:
        d = cond - uncond
        rate = semantic_rate(d, self._maps.masks(), self._guidance)
        return uncond + self._guidance * rate.to(d) * d


def semantic_rate(d: Tensor, masks: Masks, guidance: float, least: float = LEAST, most: float = MOST) -> Tensor:
    """How much more or less each pixel is guided, ``(B,1,H,W)``.

    Args:
        d: ``e_c - e_u``, ``(B,C,H,W)``.
        masks: of the words and of the foreground, on a smaller grid.
        guidance: CFG scale.
        least, most: limits of the rate; both 1: plain guidance.
    """
    n = d.float().norm(dim=1, keepdim=True)
    size = (d.shape[-2], d.shape[-1])
    words, foreground = enlarge(masks.tokens, size), enlarge(masks.foreground, size)
    rate = mean_over(n, foreground) / mean_over(n, words).clamp_min(torch.finfo(n.dtype).tiny)
    rate = (rate * words).sum(dim=1, keepdim=True).clamp(least, most)
    return smoothed(rate.clamp(max=CEILING / guidance) if guidance > 0 else rate)


def mean_over(n: Tensor, masks: Tensor) -> Tensor:
    """Mean of ``n`` ``(B,1,H,W)`` over each mask ``(B,M,H,W)``, ``(B,M,1,1)``; 0 for one that is empty."""
    return (n * masks).sum(dim=(-2, -1), keepdim=True) / masks.sum(dim=(-2, -1), keepdim=True).clamp_min(1.0)
