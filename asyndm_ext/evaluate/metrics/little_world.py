"""The judge of the little world: what the prompt says against what a network that knows the world sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.world.judge import Judge, load_judge, verdict
from asyndm_ext.world.words import read

SIDE = 128
"""Of the pictures that the judge was trained on, pixels."""


@cache
def the_judge() -> Judge:
    """Loaded once."""
    return load_judge()


class LittleWorld:
    """See :mod:`asyndm_ext.world.judge`.

    Args:
        judge: another one than the package's.
    """

    columns = (
        Column("exact", "all right", "The picture shows what the prompt says and nothing else.", share=True),
        Column("animal", "animal", "The animal, as many as asked for, and no other.", share=True),
        Column("thing", "thing", "The thing once, and no other.", share=True),
        Column("uses", "together", "The animal uses the thing, or stands beside it, as asked.", share=True),
        Column("paint", "colour", "The thing's colour, where the prompt names one.", share=True),
        Column("ground", "ground", "The ground, where the prompt names one.", share=True),
        Column("light", "light", "Day, dusk or night, where the prompt names it.", share=True),
    )

    def __init__(self, judge: Judge | None = None) -> None:
        self._judge = judge

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """Raises ValueError for pictures of another size than the judge knows."""
        if any(picture.size != (SIDE, SIDE) for picture in pictures):
            raise ValueError(f"the judge of the little world knows pictures of {SIDE}x{SIDE} pixels only")
        images = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
        seen = (self._judge or the_judge()).see(images.permute(0, 3, 1, 2).float() / 255)
        found = [verdict(one, read(prompt.text).text) for one, prompt in zip(seen, prompts, strict=True)]
        return [
            {"exact": float(one.exact), **{name: float(v) for name, v in vars(one).items() if v is not None}}
            for one in found
        ]
