"""What the exact world's latents show: nothing is guessed, a part is the kind that it is nearest to."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.exact.config import Asked, is_usual

PARTS = ("ground", "animal", "thing")


class ExactScores:
    """The scores come with the latents; there are no pictures to judge."""

    columns = (
        Column("exact", "all right", "Every part is what the prompt says.", share=True),
        Column("ground", "ground", "The ground is.", share=True),
        Column("animal", "animal", "The animal is.", share=True),
        Column("thing", "thing", "The thing is, where there is one.", share=True),
        Column("pulled", "pulled", "All parts are each other's usual ones instead.", rises=False, share=True),
    )

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        raise ValueError("the exact world has no pictures")


def scores(found: Sequence[int], asked: Asked) -> dict[str, float]:
    """Of one latent, whose parts are of the kinds ``found``."""
    right = [float(a == b) for a, b in zip(found, asked.kinds, strict=True)]
    return {"exact": min(right), **dict(zip(PARTS, right, strict=False)), "pulled": float(is_usual(tuple(found)))}
