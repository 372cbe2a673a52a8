"""A moving window over the endless sequence of scenes, kept as latents, so that drawing them costs the training little.

Scene ``n`` of a data set is ``scene_from_seed(seed, n)``. The pool holds the blocks ``[step // refresh, step // refresh
+ blocks)``: what is in it depends on the step alone, and a resumed run sees the same scenes as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asyndm_ext.world.blocks import CELLS, PARTS, block_of
from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.scenes import SIZE, Scene


@dataclass(frozen=True)
class Batch:
    """Some rows of the pool.

    Attributes:
        latents: ``(B,12,16,16)`` float32.
        ids: token numbers ``(B,L)``.
        nouns: the column of the animal's and the thing's word ``(B,2)``, 0 where there is none.
        cover: how much of each cell they cover ``(B,2,CELLS,CELLS)``, fractions.
    """

    latents: Tensor
    ids: Tensor
    nouns: Tensor
    cover: Tensor


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """``(B,3,H,W)`` in [0, 1]."""
    return _in_unit(_stacked(scenes))


class ScenePool:
    """Latents, captions and whereabouts of ``blocks * block`` scenes, one block replaced every ``refresh`` steps.

    ``drawer``: draws the scenes; without one they are drawn here. What is in the pool does not depend on it.
    """

    def __init__(
        self,
        model: WorldModel,
        seed: int,
        blocks: int,
        block: int = 32,
        refresh: int = 8,
        drawer: Drawer | None = None,
    ) -> None:
        self._model, self._seed, self._drawer = model, seed, drawer or Drawer()
        self._blocks, self._block, self._refresh = blocks, block, refresh
        self._held: list[int | None] = [None] * blocks
        many = blocks * block
        device = model.device
        # Half precision: 6 KB a scene, and rounding far below the noise of any timestep.
        latent = (model.latent_channels, *[SIZE // model.latent_factor] * 2)
        self._latents = torch.empty(many, *latent, dtype=torch.float16, device=device)
        self._ids = torch.empty(many, model.tokenizer.length, dtype=torch.int64, device=device)
        self._nouns = torch.empty(many, len(PARTS), dtype=torch.int64, device=device)
        self._cover = torch.empty(many, len(PARTS), CELLS, CELLS, dtype=torch.float16, device=device)

    def __len__(self) -> int:
        """Scenes held."""
        return len(self._ids)

    def advance(self, step: int) -> None:
        """Bring the window to ``step``: draw and encode what is missing."""
        first = step // self._refresh
        last, ahead = first + self._blocks, self._drawer.ahead
        missing = [number for number in range(first, last) if self._held[number % self._blocks] != number]
        coming = [*missing, *range(last, last + ahead)]
        self._begin(coming[:ahead])
        for i, number in enumerate(missing):
            self._begin(coming[i + 1 : i + 1 + ahead])
            self._fill(number % self._blocks, number)

    def _begin(self, blocks: Sequence[int]) -> None:
        self._drawer.begin(self._seed, map(self._numbers, blocks), block_of)

    def _numbers(self, block: int) -> range:
        """Of a block's scenes."""
        return range(block * self._block, (block + 1) * self._block)

    @torch.no_grad()
    def _fill(self, slot: int, number: int) -> None:
        made = self._drawer.made(self._seed, self._numbers(number), block_of)
        rows = slice(slot * self._block, (slot + 1) * self._block)
        colours = self._sent(made.colours).permute(0, 3, 1, 2)
        self._latents[rows] = self._model.autoencoder.latents(colours).to(torch.float16)
        self._ids[rows] = self._sent(made.ids)
        self._nouns[rows] = self._sent(made.nouns)
        self._cover[rows] = self._sent(made.cover)
        self._held[slot] = number

    def _sent(self, values: NDArray[Any]) -> Tensor:
        """To the model's device, without waiting for it."""
        tensor, device = torch.from_numpy(values), self._model.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    def batch(self, rows: Tensor) -> Batch:
        """The pool's ``rows``."""
        return Batch(self._latents[rows].float(), self._ids[rows], self._nouns[rows], self._cover[rows].float())


class PicturePool:
    """Pictures themselves, a batch a step, on the device that trains on them.

    Without ``kept`` each step has new ones. With it there are so many batches, a step sees pictures picked among all of
    them, and one of the batches is replaced every :attr:`REFRESH` steps: what is there depends on the step alone.
    """

    REFRESH = 24

    def __init__(
        self, device: torch.device, seed: int, batch: int, kept: int = 0, drawer: Drawer | None = None
    ) -> None:
        self._device, self._seed, self._batch, self._kept = device, seed, batch, kept
        self._drawer = drawer or Drawer()
        self._held: list[int | None] = [None] * kept
        self._images = torch.empty(kept * batch, SIZE, SIZE, 3, dtype=torch.uint8, device=device)

    def at(self, step: int, generator: torch.Generator) -> Tensor:
        """The step's pictures ``(B,3,H,W)`` in [0, 1]; ``generator`` picks among those that are kept."""
        if not self._kept:
            self._begin(range(step, step + 1 + self._drawer.ahead))
            return _in_unit(self._new(step))
        first = step // self.REFRESH
        last = first + self._kept
        missing = [number for number in range(first, last) if self._held[number % self._kept] != number]
        coming = [*missing, *range(last, last + self._drawer.ahead)]
        for i, number in enumerate(missing):
            self._begin(coming[i : i + 1 + self._drawer.ahead])
            slot = number % self._kept
            self._images[slot * self._batch : (slot + 1) * self._batch] = self._new(number)
            self._held[slot] = number
        rows = torch.randint(len(self._images), (self._batch,), generator=generator, device=self._device)
        return _in_unit(self._images[rows])

    def _begin(self, blocks: Sequence[int]) -> None:
        self._drawer.begin(self._seed, map(self._numbers, blocks))

    def _numbers(self, block: int) -> range:
        return range(block * self._batch, (block + 1) * self._batch)

    def _new(self, block: int) -> Tensor:
        return _stacked(self._drawer.scenes(self._seed, self._numbers(block))).to(self._device)


def _stacked(scenes: Sequence[Scene]) -> Tensor:
    """``(B,H,W,3)`` uint8."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes]))


def _in_unit(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 255
