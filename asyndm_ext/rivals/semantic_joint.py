"""The same of a diffusion transformer whose blocks look at picture and text together (MMDiT: SD3, SD3.5).

Nobody has published S-CFG for these. The AsynDM paper has numbers for SD3.5 (Table 5), and no recipe. What is done
here: of the picture's queries, a softmax over the picture's keys alone is the self-attention, and one over the keys of
the text's first part, CLIP's, the cross-attention. All blocks have one grid. Token 0 stands for the background, as it
does in a UNet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from asyndm_ext.model.cross_probabilities import without_autocast
from asyndm_ext.model.transformers import mmdit
from asyndm_ext.model.transformers.layout import Part
from asyndm_ext.region.grid import halved_grid
from asyndm_ext.rivals.semantic import WordMaps

CLIP_TOKENS = 77
"""In front of T5's."""


class JointMaps(WordMaps):
    """Captures an MMDiT's attention.

    Args:
        network: one that :func:`asyndm_ext.model.transformers.mmdit.is_mmdit` knows.
        images, published: as of :class:`WordMaps`.
    """

    def __init__(self, network: nn.Module, images: int, published: bool = False) -> None:
        super().__init__(images, published)
        self._attentions = mmdit.layout(network).attentions
        self._grid = (0, 0)
        self._held: dict[Part, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[JointMaps]:
        handles = []
        try:
            for attention in self._attentions:
                for shown in attention:
                    part = shown.parts[0]
                    assert part is not None
                    handles.append(shown.module.register_forward_hook(self._on(part)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.read(())
            self._held.clear()

    def begin(self, latent_size: tuple[int, int]) -> None:
        self._grid = halved_grid(*latent_size, 1)
        self._forget()

    def _on(self, part: Part) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if not self._rows:
                return
            self._held[part] = output
            if {"text_keys", "queries", "keys"} <= self._held.keys():
                self._layer(self._held.pop("queries"), self._held.pop("keys"), self._held.pop("text_keys"))

        return hook

    def _layer(self, queries: Tensor, keys: Tensor, text: Tensor) -> None:
        """``(N,L,heads,d)`` each, the text's ``(N,T,heads,d)``."""
        cells = self._grid[0] * self._grid[1]
        if len(queries) != len(self._rows) or queries.shape[1] != cells:
            return
        own, words = (shares(queries, one) for one in (keys, text[:, :CLIP_TOKENS]))
        self._add(own, words, self._grid, self._grid)


def shares(queries: Tensor, keys: Tensor) -> Tensor:
    """Softmax over these keys alone, the mean over heads, ``(N,L,S)`` float32.

    Args:
        queries: ``(N,L,heads,d)``. keys: ``(N,S,heads,d)``.
    """
    rows = []
    with without_autocast(queries.device):
        # One image's matrices at a time.
        for q, k in zip(queries.float().transpose(1, 2), keys.float().transpose(1, 2), strict=True):
            rows.append((q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=0))
    return torch.stack(rows)
