"""Soft-TIFA (Kamath et al. 2025, GenEval 2): a question for every single thing that a prompt asks for.

A vision-language model is asked each of them, and the score is how probable the right answer is to it. The geometric
mean says whether the whole prompt is met (one thing that is missing spoils it), the arithmetic mean how much of it is.
The questions come with the prompts (``vqa_list`` in GenEval 2's file). The request for one word is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.metrics.vlm import LocalVlm, Vlm
from asyndm_ext.evaluate.prompts import Prompt

QUESTION = "{} Please answer with one word."
_LEAST = 1e-12  # of a probability: one that rounds to 0 has a logarithm, too


class SoftTifa:
    """See :class:`~asyndm_ext.evaluate.metrics.vlm.LocalVlm` for the options; ``vlm`` takes its place."""

    columns = (
        Column(
            "softtifa",
            "Soft-TIFA",
            "Whether all that the prompt asks for is there: the geometric mean of how surely a vision-language model"
            " answers every question about it.",
            share=True,
        ),
        Column("softtifa_parts", "Soft-TIFA, parts", "How much of it is there: their arithmetic mean.", share=True),
    )

    def __init__(self, weights: str = "", device: str = "cpu", dtype: str = "bfloat16", vlm: Vlm | None = None) -> None:
        self._vlm = vlm or LocalVlm(weights, device, dtype)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError where there is nothing to ask."""
        if not any(prompt.questions for prompt in prompts):
            raise ValueError(
                "softtifa asks the questions that come with the prompts, and these have none; take GenEval 2's file"
                ' with --prompt-file, or give each prompt of a JSON file a "vqa_list": [["Is there a cat?", "Yes"]]'
            )

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        return [self._of(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]

    def _of(self, picture: Image.Image, prompt: Prompt) -> dict[str, float]:
        sure = [
            self._vlm.probability(picture, QUESTION.format(question), answer) for question, answer in prompt.questions
        ]
        if not sure:
            return {}
        return {
            "softtifa": math.exp(sum(math.log(max(p, _LEAST)) for p in sure) / len(sure)),
            "softtifa_parts": sum(sure) / len(sure),
        }
