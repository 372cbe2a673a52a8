"""PickScore (Kirstain et al. 2023): a CLIP that was trained on which pictures people pick; about 20 to 23."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import Column, MetricUnavailable
from asyndm_ext.evaluate.prompts import Prompt


class PickScore:
    """A CLIP model of transformers in a local folder: yuvalkirstain/PickScore_v1.

    Args:
        weights: the model's folder.
        processor: the folder of its tokenizer and of what prepares pictures (laion/CLIP-ViT-H-14-laion2B-s32B-b79K);
            the model's own if absent.
        device: where to compute.
    """

    columns = (Column("pickscore", "PickScore", "Estimated human preference for the picture, given the prompt."),)

    def __init__(self, weights: str, processor: str = "", device: str = "cpu") -> None:
        try:
            from transformers import AutoProcessor, CLIPModel
        except ImportError as missing:
            raise MetricUnavailable(f"pickscore needs the package transformers ({missing})") from None
        if not (Path(weights) / "config.json").is_file():
            raise MetricUnavailable(f"pickscore: there is no model in the folder {weights}")
        self._device = device
        try:
            self._processor: Any = AutoProcessor.from_pretrained(processor or weights, local_files_only=True)
            model: Any = CLIPModel.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise MetricUnavailable(f"pickscore: {error}") from None
        self._model = model.float().to(device).eval()

    @torch.no_grad()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        inputs = self._processor(
            text=[prompt.text for prompt in prompts],
            images=list(pictures),
            padding=True,
            truncation=True,
            max_length=77,
            return_tensors="pt",
        ).to(self._device)
        scores = self._model(**inputs).logits_per_image.diagonal()  # scaled cosines
        return [{"pickscore": float(one)} for one in scores]
