"""The exact judge of the small world: what the prompt says against what can be counted in the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from asyndm_ext.embedded.judge import judge_found, view
from asyndm_ext.embedded.reading import read_text
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.prompts import Prompt


class SmallWorld:
    """See :mod:`asyndm_ext.embedded.judge`. Pictures must be square."""

    columns = (
        Column("exact", "all right", "The picture shows what the prompt says and nothing else.", share=True),
        Column("objects", "objects", "All objects in their colours and shapes, none too many.", share=True),
        Column("colours", "colours", "The objects' colours, whatever their shapes.", share=True),
        Column("number", "number", "As many objects as asked for.", share=True),
        Column("relation", "relation", "Left, right, above or below as asked; needs the right objects.", share=True),
        Column("ground", "ground", "The background's colour, where the prompt names one.", share=True),
        Column("found", "found", "Share of the objects asked for that are there.", share=True),
        Column("form", "form", "How well the objects' outlines fit their shapes (IoU, mean).", share=True),
        Column("grain", "grain", "Noise left in the background, 8-bit steps.", rises=False),
    )

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        return [_score(np.asarray(picture), prompt) for picture, prompt in zip(pictures, prompts, strict=True)]


def _score(image: np.ndarray, prompt: Prompt) -> dict[str, float]:
    text = read_text(prompt.text)
    seen = view(image)
    verdict = judge_found(seen, text)
    wanted = Counter((one.colour, one.shape) for one in text.objects())
    there = wanted & Counter((one.colour, one.shape) for one in seen.objects)
    scores = {
        "exact": float(verdict.exact),
        "objects": float(verdict.objects),
        "colours": float(verdict.colours),
        "number": float(verdict.number),
        "found": there.total() / wanted.total(),
        "grain": round(seen.grain, 4),
    }
    if text.relation is not None:
        scores["relation"] = float(verdict.relation)
    if text.ground is not None:
        scores["ground"] = float(verdict.ground)
    if seen.objects:
        scores["form"] = round(float(np.mean([one.fit for one in seen.objects])), 4)
    return scores
