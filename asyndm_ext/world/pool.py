"""A moving window over the endless sequence of scenes, kept as latents, so that drawing them costs the training little.

Scene ``n`` of a data set is ``scene_from_seed(seed, n)``. The pool holds the blocks ``[step // refresh, step // refresh
+ blocks)``: what is in it depends on the step alone, and a resumed run sees the same scenes as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.scenes import SIZE, Scene
from asyndm_ext.world.words import read, sentence

CELLS = 16
"""Of the attention's grid, a side."""
PARTS = ("animal", "thing")
_LEFT_OUT = {"ground": 0.3, "light": 0.6, "paint": 0.5}


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
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """What somebody might write under a scene: in words of their choice, and not everything."""
    said = {name: bool(rng.random() >= share) for name, share in _LEFT_OUT.items()}
    return sentence(scene.content.told(**said), rng.random(6).tolist())


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
        # Half precision: 6 KB a scene, and rounding far below the noise of any timestep.
        self._latents = torch.empty(
            many, model.latent_channels, *[SIZE // model.latent_factor] * 2, dtype=torch.float16
        )
        self._ids = torch.empty(many, model.tokenizer.length, dtype=torch.int64)
        self._nouns = torch.empty(many, len(PARTS), dtype=torch.int64)
        self._cover = torch.empty(many, len(PARTS), CELLS, CELLS, dtype=torch.float16)

    def __len__(self) -> int:
        """Scenes held."""
        return len(self._ids)

    def advance(self, step: int) -> None:
        """Bring the window to ``step``: draw and encode what is missing."""
        first = step // self._refresh
        last, ahead = first + self._blocks, self._drawer.ahead
        missing = [number for number in range(first, last) if self._held[number % self._blocks] != number]
        coming = [*missing, *range(last, last + ahead)]
        self._drawer.begin(self._seed, map(self._numbers, coming[:ahead]))
        for i, number in enumerate(missing):
            self._drawer.begin(self._seed, map(self._numbers, coming[i + 1 : i + 1 + ahead]))
            self._fill(number % self._blocks, number)

    def _numbers(self, block: int) -> range:
        """Of a block's scenes."""
        return range(block * self._block, (block + 1) * self._block)

    @torch.no_grad()
    def _fill(self, slot: int, number: int) -> None:
        scenes = self._drawer.scenes(self._seed, self._numbers(number))
        rows = slice(slot * self._block, (slot + 1) * self._block)
        self._latents[rows] = self._model.encode(pictures(scenes).to(self._model.device)).to("cpu", torch.float16)
        rng = np.random.default_rng([self._seed, number, 1])
        for row, scene in enumerate(scenes, start=rows.start):
            text = caption(scene, rng)
            self._ids[row] = torch.tensor(self._model.tokenizer.encode(text))
            places = read(text).places
            self._nouns[row] = torch.tensor([places[part].stop if part in places else 0 for part in PARTS])
            side = scene.image.shape[0] // CELLS
            masks = torch.from_numpy(scene.masks).float()
            self._cover[row] = masks.unflatten(2, (CELLS, side)).unflatten(1, (CELLS, side)).mean((2, 4)).half()
        self._held[slot] = number

    def batch(self, rows: Tensor) -> Batch:
        """The pool's ``rows``."""
        return Batch(self._latents[rows].float(), self._ids[rows], self._nouns[rows], self._cover[rows].float())
