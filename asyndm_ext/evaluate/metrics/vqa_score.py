"""VQAScore (Lin et al. 2024): how probable it is that a vision-language model says Yes to "Does this figure show ...?".

The present form of it asks Qwen2.5-VL (package t2v-metrics 3); the question is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.metrics.vlm import LocalVlm, Vlm
from asyndm_ext.evaluate.prompts import Prompt

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"


class VqaScore:
    """See :class:`~asyndm_ext.evaluate.metrics.vlm.LocalVlm` for the options; ``vlm`` takes its place."""

    columns = (
        Column("vqascore", "VQAScore", "How surely a vision-language model says that the picture shows it.", digits=4),
    )

    def __init__(self, weights: str = "", device: str = "cpu", dtype: str = "bfloat16", vlm: Vlm | None = None) -> None:
        self._vlm = vlm or LocalVlm(weights, device, dtype)

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        return [
            {"vqascore": self._vlm.probability(picture, QUESTION.format(prompt.text), ANSWER)}
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
