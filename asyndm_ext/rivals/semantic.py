"""What S-CFG reads off a network's attention: which word every cell belongs to, and where the background is.

Of every transformer block the self-attention says which cells belong together, and the cross-attention which word a
cell looks at. Both are worked out again from the outputs of ``to_q`` and ``to_k``, whatever attention the host runs;
they are wanted whole, so this costs memory: a layer's self-attention is cells x cells numbers for each image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asyndm_ext.model.cross_probabilities import without_autocast
from asyndm_ext.region.grid import halved_grid
from asyndm_ext.rivals.guidance import Row, Unreadable

HALVINGS = 2
"""Of the latent, at the finer of the two sizes at which attention is looked at: Stable Diffusion's."""


@dataclass(frozen=True)
class Masks:
    """Of each image: one mask per token (every cell belongs to one), and the foreground; 0 and 1.

    Attributes:
        tokens: ``(B,T,h,w)``. foreground: ``(B,1,h,w)``.
    """

    tokens: Tensor
    foreground: Tensor


class WordMaps(ABC):
    """Sums up what the layers of a network say, and makes :class:`Masks` of it.

    Args:
        images: number of images in the batch.
        published: sum up the powers of the self-attention as the authors' program does, not as their paper says.
    """

    def __init__(self, images: int, published: bool) -> None:
        self._images, self._published = images, published
        self._rows: Sequence[Row | None] = ()
        self._tokens: list[Tensor | None] = []
        self._ground: list[Tensor | None] = []

    @abstractmethod
    def attached(self) -> AbstractContextManager[Any]:
        """Hooks on the network live inside this block only."""

    @abstractmethod
    def begin(self, latent_size: tuple[int, int]) -> None:
        """Forget what was seen; the next calls are on latents of this ``(H, W)``."""

    def _forget(self) -> None:
        self._tokens, self._ground = [None] * self._images, [None] * self._images

    def read(self, rows: Sequence[Row | None]) -> None:
        """The rows of the next call; none: nothing is looked at."""
        self._rows = rows

    def masks(self) -> Masks:
        """Raises Unreadable: no layer was seen, or not of every image."""
        tokens, ground = ([one for one in maps if one is not None] for maps in (self._tokens, self._ground))
        if not len(tokens) == len(ground) == self._images:
            raise Unreadable(
                "S-CFG could not read the attention: another extension changes it, or no layer has a grid of a quarter"
                " or an eighth of the latent's side"
            )
        return Masks(winners(torch.stack(tokens)), 1 - winners(torch.stack(ground))[:, :1])

    def _add(self, own: Tensor, words: Tensor, grid: tuple[int, int], finest: tuple[int, int]) -> None:
        """What a layer says: self-attention ``(N,L,L)`` and cross-attention ``(N,L,T)`` of the rows."""
        for row, belong, look in zip(self._rows, own, words, strict=True):
            if row is None or row.part == "perturbed":
                continue
            spread = mixed(belong, look, self._published).T.unflatten(-1, grid)[None]
            if grid != finest:
                spread = F.interpolate(spread, size=finest, mode="bilinear")
            spread = smoothed(spread)[0]
            if row.part == "uncond":
                spread = torch.stack([spread[0], spread[1:].sum(dim=0)])
            into = self._ground if row.part == "uncond" else self._tokens
            before = into[row.image]
            even = spread / spread.mean(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(spread.dtype).tiny)
            into[row.image] = even if before is None else before + even


class SemanticMaps(WordMaps):
    """Captures a UNet's attention.

    Args:
        network: a UNet of transformer blocks with ``attn1`` and ``attn2``.
        images: number of images in the batch.
        published: sum up the powers of the self-attention as the authors' program does, not as their paper says.
        halvings: how often the latent was halved at the finer of the two sizes that are looked at.

    Raises:
        ValueError: the network has no such blocks.
    """

    def __init__(self, network: nn.Module, images: int, published: bool = False, halvings: int = HALVINGS) -> None:
        self._halvings = halvings
        self._blocks: list[Any] = [
            module
            for module in network.modules()
            if all(hasattr(getattr(module, name, None), "to_k") for name in ("attn1", "attn2"))
        ]
        if not self._blocks:
            raise ValueError(f"{type(network).__name__} has no blocks with self- and cross-attention")
        super().__init__(images, published)
        self._grids: dict[int, tuple[int, int]] = {}
        self._queries: dict[tuple[int, str], Tensor] = {}
        self._own: dict[int, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[SemanticMaps]:
        handles = []
        try:
            for number, block in enumerate(self._blocks):
                for name in ("attn1", "attn2"):
                    layer = getattr(block, name)
                    handles.append(layer.to_q.register_forward_hook(self._on_query(number, name)))
                    handles.append(layer.to_k.register_forward_hook(self._on_key(number, name, layer)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.read(())

    def begin(self, latent_size: tuple[int, int]) -> None:
        grids = [halved_grid(*latent_size, self._halvings + more) for more in (0, 1)]
        self._grids = {h * w: (h, w) for h, w in grids}
        self._forget()

    def read(self, rows: Sequence[Row | None]) -> None:
        super().read(rows)
        self._queries.clear()
        self._own.clear()

    # -- what the layers make of their inputs

    def _on_query(self, number: int, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, q: Tensor) -> None:
            if len(q) == len(self._rows) and q.shape[1] in self._grids:
                self._queries[number, name] = q

        return hook

    def _on_key(self, number: int, name: str, layer: Any) -> Callable:
        def hook(module: nn.Module, args: tuple, k: Tensor) -> None:
            q = self._queries.pop((number, name), None)
            if q is None or len(k) != len(q):
                return
            if name == "attn1":
                # Of some blocks the first attention looks at the text, too.
                if k.shape[1] == q.shape[1]:
                    self._own[number] = attention(q, k, layer)
            elif number in self._own:
                finest = max(self._grids.values())
                self._add(self._own.pop(number), attention(q, k, layer), self._grids[q.shape[1]], finest)

        return hook


def attention(q: Tensor, k: Tensor, layer: Any) -> Tensor:
    """Softmax over the keys, the mean over heads: ``(N,L,heads*d)`` and ``(N,S,heads*d)`` to ``(N,L,S)`` float32."""
    scale = getattr(layer, "scale", None) or (q.shape[-1] / layer.heads) ** -0.5
    rows = []
    with without_autocast(q.device):
        for own_q, own_k in zip(q.float(), k.float(), strict=True):  # one image's matrices at a time
            queries, keys = (one.unflatten(-1, (layer.heads, -1)).transpose(0, 1) for one in (own_q, own_k))
            rows.append((queries @ keys.transpose(1, 2) * scale).softmax(dim=-1).mean(dim=0))
    return torch.stack(rows)


def mixed(own: Tensor, words: Tensor, published: bool = False) -> Tensor:
    """What a cell looks at together with those it belongs to: ``T @ words``, ``(L,T)``.

    Args:
        own: the self-attention S, ``(L,L)``. words: the cross-attention, ``(L,T)``.
        published: ``T = (S + 3 S^2) / 4`` instead of the paper's ``(S + S^2 + S^3 + S^4) / 4``.
    """
    first = own @ words
    if published:
        return (first + 3 * own @ first) / 4
    total, power = first, first
    for _ in range(3):
        power = own @ power  # never the power of S itself, which is far larger
        total = total + power
    return total / 4


def smoothed(maps: Tensor) -> Tensor:
    """``(N,C,h,w)`` under the authors' Gaussian of 3 x 3, reflected at the edges."""
    # Theirs is exp(-(x / 2 sigma)^2) at sigma 1/2: wider than its name by the root of two.
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0]) ** 2))
    line = (line / line.sum()).to(maps)
    n, channels = maps.shape[:2]
    padded = F.pad(maps.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, (line[:, None] * line)[None, None]).view(n, channels, *maps.shape[-2:])


def winners(maps: Tensor) -> Tensor:
    """Which of the maps ``(B,C,h,w)`` is the highest in each cell: 1 there, 0 elsewhere."""
    return F.one_hot(maps.argmax(dim=1), maps.shape[1]).movedim(-1, 1).to(maps.dtype)
