"""What the training wants of scenes, made where they are drawn, without torch, which takes long to load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyndm_ext.world.drawer import scenes_of
from asyndm_ext.world.scenes import SIZE, Scene
from asyndm_ext.world.tokens import Tokenizer
from asyndm_ext.world.words import read, sentence

CELLS = 16
"""Of the attention's grid, a side."""
PARTS = ("animal", "thing")
_LEFT_OUT = {"ground": 0.3, "light": 0.6, "paint": 0.5}


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """What somebody might write under a scene: in words of their choice, and not everything."""
    said = {name: bool(rng.random() >= share) for name, share in _LEFT_OUT.items()}
    return sentence(scene.content.told(**said), rng.random(6).tolist())


@dataclass(frozen=True)
class Block:
    """What the training wants of some scenes, small enough to go from one process to another.

    Attributes:
        colours: the pictures at a quarter of their side, which is what a latent is made of, ``(N,32,32,3)`` in [0, 1].
        ids, nouns, cover: as in :class:`~asyndm_ext.world.pool.Batch`.
    """

    colours: NDArray[np.float32]
    ids: NDArray[np.int64]
    nouns: NDArray[np.int64]
    cover: NDArray[np.float16]


def block_of(seed: int, numbers: range) -> Block:
    """The scenes of these numbers with captions of their own, drawn here and now."""
    rng, tokenizer = np.random.default_rng([seed, numbers.start // len(numbers), 1]), Tokenizer()
    scenes = scenes_of(seed, numbers)
    colours = np.stack([scene.image for scene in scenes]).astype(np.float32) / 255
    masks = np.stack([scene.masks for scene in scenes]).astype(np.float32)
    texts = [caption(scene, rng) for scene in scenes]
    places = [read(text).places for text in texts]
    side = SIZE // CELLS
    return Block(
        colours.reshape(len(scenes), SIZE // 4, 4, SIZE // 4, 4, 3).mean((2, 4)),
        np.array([tokenizer.encode(text) for text in texts]),
        np.array([[own[part].stop if part in own else 0 for part in PARTS] for own in places]),
        masks.reshape(len(scenes), len(PARTS), CELLS, side, CELLS, side).mean((3, 5)).astype(np.float16),
    )
