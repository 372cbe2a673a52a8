"""A vision-language model's mark from 0 to 9 (the paper's QwenScore, with Qwen2.5-VL-7B-Instruct)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL import Image

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.metrics.vlm import LocalVlm, Vlm
from asyndm_ext.evaluate.prompts import Prompt

QUESTION = (
    "You are given an image and a description. Please evaluate how well the image matches the description on a scale"
    " from 0 to 9, where 0 means completely unrelated and 9 means perfectly aligned. Return only the score as a single"
    " integer without explanation.\n Description: {}"
)
"""Appendix B.4 of the paper."""
_LONGEST = 8
_MARK = re.compile(r"(?<![\d.])\d(?![\d.]*\d)")


class VlmScore:
    """See :class:`~asyndm_ext.evaluate.metrics.vlm.LocalVlm` for the options; ``vlm`` takes its place."""

    columns = (Column("vlm", "VLM score", "The vision-language model's mark for the match, 0 to 9."),)

    def __init__(self, weights: str = "", device: str = "cpu", dtype: str = "bfloat16", vlm: Vlm | None = None) -> None:
        self._vlm = vlm or LocalVlm(weights, device, dtype)

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """An answer without a mark gives no score."""
        scores: list[dict[str, float]] = []
        for picture, prompt in zip(pictures, prompts, strict=True):
            mark = _MARK.search(self._vlm.answer(picture, QUESTION.format(prompt.text), _LONGEST))
            scores.append({"vlm": float(mark[0])} if mark else {})
        return scores
