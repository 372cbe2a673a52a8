"""ImageReward (Xu et al. 2023): a learned estimate of human preference, in its own units, as the paper reports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import Column, MetricUnavailable
from asyndm_ext.evaluate.prompts import Prompt


class ImageReward:
    """The authors' package with local weights.

    Args:
        weights: ImageReward.pt.
        config: med_config.json beside it; found there if absent.
        device: where to compute.

    The package reads the tokenizer ``bert-base-uncased`` from the Hugging Face cache, and wants older versions of timm
    and transformers than the other judges: give it an environment of its own and run the same command in both.
    """

    columns = (
        Column("imagereward", "ImageReward", "Estimated human preference for the picture, given the prompt.", digits=4),
    )

    def __init__(self, weights: str, config: str = "", device: str = "cpu") -> None:
        config = config or str(Path(weights).with_name("med_config.json"))
        try:
            import ImageReward as package
        except ImportError as missing:
            raise MetricUnavailable(f"imagereward needs the package image-reward, whole ({missing})") from None
        for path in (weights, config):
            if not Path(path).is_file():
                raise MetricUnavailable(f"imagereward: there is no {path}")
        try:
            self._model = package.load(weights, device=device, med_config=config)
        except OSError as error:
            raise MetricUnavailable(f"imagereward: {error}") from None

    @torch.no_grad()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        return [
            {"imagereward": float(self._model.score(prompt.text, picture))}
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
