"""A moving window over the endless sequence of scenes, kept as latents, so that encoding costs the training little.

Scene ``n`` of a data set is ``scene_from_seed(seed, n)``. Scenes are drawn and encoded in blocks; the pool holds the
blocks ``[step // refresh, step // refresh + blocks)``. So what is in it depends on the step alone, and a resumed run
sees the same scenes, to the last bit, as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.embedded.model import TinyModel
from asyndm_ext.embedded.scenes import Scene, scene_from_seed

GROUPS = 3
"""The most groups that a scene has."""


@dataclass(frozen=True)
class Batch:
    """Some rows of the pool.

    Attributes:
        latents: ``(B,4,32,32)`` float32.
        ids: token numbers ``(B,L)``.
        nouns: the column of each group's shape word ``(B,GROUPS)``, 0 where there is no such group.
        cover: how much of each cell each group's objects cover, ``(B,GROUPS,8,8)`` float32 in [0, 1].
    """

    latents: Tensor
    ids: Tensor
    nouns: Tensor
    cover: Tensor


def draw_pictures(seed: int, numbers: range) -> tuple[Tensor, list[Scene]]:
    """Scenes of those numbers, and their pictures (B, 3, 128, 128) in [0, 1]."""
    scenes = [scene_from_seed(seed, number) for number in numbers]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    return images.permute(0, 3, 1, 2).float() / 255, scenes


def whereabouts(scenes: Sequence[Scene], cells: int = 8) -> tuple[Tensor, Tensor]:
    """Columns of the nouns (B, GROUPS) and what their groups cover (B, GROUPS, cells, cells), as in :class:`Batch`."""
    nouns = torch.zeros(len(scenes), GROUPS, dtype=torch.int64)
    cover = torch.zeros(len(scenes), GROUPS, cells, cells)
    for row, scene in enumerate(scenes):
        side = scene.image.shape[0] // cells
        masks = iter(torch.from_numpy(scene.masks).float())
        for number, (group, noun) in enumerate(zip(scene.text.groups, scene.text.nouns(), strict=True)):
            nouns[row, number] = noun + 1  # word i stands in column i + 1
            for _ in range(group.count):
                cover[row, number] += next(masks).unflatten(1, (cells, side)).unflatten(0, (cells, side)).mean((1, 3))
    return nouns, cover


class LatentPool:
    """Latents and token rows of ``blocks * block`` scenes, one block replaced every ``refresh`` steps."""

    def __init__(self, model: TinyModel, seed: int, blocks: int, block: int = 32, refresh: int = 8) -> None:
        self._model, self._seed = model, seed
        self._blocks, self._block, self._refresh = blocks, block, refresh
        self._held: list[int | None] = [None] * blocks
        # Half precision: 8 KB a scene, and rounding far below the noise of any timestep.
        self._latents = torch.empty(blocks * block, model.latent_channels, 32, 32, dtype=torch.float16)
        self._ids = torch.empty(blocks * block, model.tokenizer.length, dtype=torch.int64)
        self._nouns = torch.empty(blocks * block, GROUPS, dtype=torch.int64)
        self._cover = torch.empty(blocks * block, GROUPS, 8, 8, dtype=torch.float16)

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

    def _fill(self, slot: int, number: int) -> None:
        images, scenes = draw_pictures(self._seed, range(number * self._block, (number + 1) * self._block))
        rows = slice(slot * self._block, (slot + 1) * self._block)
        self._latents[rows] = self._model.encode(images.to(self._model.device)).to("cpu", torch.float16)
        self._ids[rows] = torch.tensor([self._model.tokenizer.encode(prompt) for prompt in (s.prompt for s in scenes)])
        self._nouns[rows], self._cover[rows] = whereabouts(scenes)
        self._held[slot] = number

    def batch(self, rows: Tensor) -> Batch:
        """The pool's ``rows``."""
        return Batch(self._latents[rows].float(), self._ids[rows], self._nouns[rows], self._cover[rows].float())
