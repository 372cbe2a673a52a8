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

from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.scenes import Scene, scene_from_seed
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


def scenes_of(seed: int, numbers: range) -> list[Scene]:
    return [scene_from_seed(seed, number) for number in numbers]


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """``(B,3,H,W)`` in [0, 1]."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """What somebody might write under a scene: in words of their choice, and not everything."""
    said = {name: bool(rng.random() >= share) for name, share in _LEFT_OUT.items()}
    return sentence(scene.content.told(**said), rng.random(6).tolist())


class ScenePool:
    """Latents, captions and whereabouts of ``blocks * block`` scenes, one block replaced every ``refresh`` steps."""

    def __init__(self, model: WorldModel, seed: int, blocks: int, block: int = 32, refresh: int = 8) -> None:
        self._model, self._seed = model, seed
        self._blocks, self._block, self._refresh = blocks, block, refresh
        self._held: list[int | None] = [None] * blocks
        many = blocks * block
        # Half precision: 8 KB a scene, and rounding far below the noise of any timestep.
        self._latents = torch.empty(many, model.latent_channels, CELLS, CELLS, dtype=torch.float16)
        self._ids = torch.empty(many, model.tokenizer.length, dtype=torch.int64)
        self._nouns = torch.empty(many, len(PARTS), dtype=torch.int64)
        self._cover = torch.empty(many, len(PARTS), CELLS, CELLS, dtype=torch.float16)

    def __len__(self) -> int:
        """Scenes held."""
        return len(self._ids)

    def advance(self, step: int) -> None:
        """Bring the window to ``step``: draw and encode what is missing."""
        first = step // self._refresh
        for number in range(first, first + self._blocks):
            slot = number % self._blocks
            if self._held[slot] != number:
                self._fill(slot, number)

    @torch.no_grad()
    def _fill(self, slot: int, number: int) -> None:
        scenes = scenes_of(self._seed, range(number * self._block, (number + 1) * self._block))
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
