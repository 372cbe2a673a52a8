"""BERTScore: a vision-language model describes the picture; how much of the prompt is in the description.

Recall of Zhang et al. (2020) with the prompt as the reference: every token of the prompt takes its best match in the
description, cosine of contextual embeddings; neither weighted by rarity nor rescaled. The paper uses
Qwen2.5-VL-7B-Instruct and "DeBERTa xlarge" and does not print what it asks the former: the question here is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from asyndm_ext.evaluate.metrics import Column, MetricUnavailable
from asyndm_ext.evaluate.metrics.vlm import LocalVlm, Vlm
from asyndm_ext.evaluate.prompts import Prompt

QUESTION = "Describe this image in one sentence."
_LONGEST = 64
_LONGEST_TEXT = 512


class BertScore:
    """The package bert-score with local weights.

    Args:
        weights: folder of the vision-language model, see :class:`~asyndm_ext.evaluate.metrics.vlm.LocalVlm`.
        bert: folder of the text model, DeBERTa xlarge (MNLI) for the paper's kind.
        layers: which of its layers gives the embeddings; 40 is bert-score's choice for deberta-xlarge-mnli.
        question: what the vision-language model is asked.
        vlm, recall: take the place of both models.
    """

    columns = (
        Column(
            "bertscore", "BERTScore", "How much of the prompt is in a model's description of the picture.", digits=4
        ),
    )

    def __init__(
        self,
        weights: str = "",
        bert: str = "",
        layers: str = "40",
        device: str = "cpu",
        dtype: str = "bfloat16",
        question: str = QUESTION,
        vlm: Vlm | None = None,
        recall: Callable[[list[str], list[str]], Sequence[float]] | None = None,
    ) -> None:
        self._recall = recall or _local_recall(bert, int(layers), device)
        self._vlm = vlm or LocalVlm(weights, device, dtype)
        self._question = question

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        descriptions = [self._vlm.answer(picture, self._question, _LONGEST) for picture in pictures]
        recalls = self._recall(descriptions, [prompt.text for prompt in prompts])
        return [{"bertscore": float(recall)} for recall in recalls]


def _local_recall(folder: str, layers: int, device: str) -> Callable[[list[str], list[str]], Sequence[float]]:
    try:
        import bert_score
    except ImportError as missing:
        raise MetricUnavailable(f"bertscore needs the package bert-score ({missing})") from None
    if not (Path(folder) / "config.json").is_file():
        raise MetricUnavailable(f"bertscore: there is no model in the folder {folder}")
    scorer = bert_score.BERTScorer(model_type=folder, num_layers=layers, device=device)
    # A folder without this entry stands for no limit, which the tokenizer cannot take as a number.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _LONGEST_TEXT)

    def recall(descriptions: list[str], references: list[str]) -> Sequence[float]:
        return scorer.score(descriptions, references)[1].tolist()

    return recall
