"""CLIPScore: cosine between CLIP's embeddings of picture and prompt, as the paper reports it (ViT-H-14, 0.37 or so)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import Column, MetricUnavailable
from asyndm_ext.evaluate.prompts import Prompt


class ClipScore:
    """A CLIP model of open_clip with local weights.

    Args:
        weights: file of the weights; for ViT-H-14 the paper's kind are those of laion2b_s32b_b79k.
        model: open_clip's name of the architecture.
        device: where to compute.
    """

    columns = (
        Column(
            "clipscore", "CLIPScore", "Cosine between CLIP's embeddings of the picture and of the prompt.", digits=4
        ),
    )

    resize: Literal["shortest", "longest"] = "shortest"
    """Which side of a picture is made as long as the model's: what is beyond it is cut off, what lacks is black."""

    def __init__(self, weights: str, model: str = "ViT-H-14", device: str = "cpu") -> None:
        try:
            import open_clip
        except ImportError as missing:
            raise MetricUnavailable(f"{self._name} needs the package open_clip_torch ({missing})") from None
        if not Path(weights).is_file():
            raise MetricUnavailable(f"{self._name}: there are no weights at {weights}")
        self._device = device
        self._model, _, self._preprocess = open_clip.create_model_and_transforms(
            model, pretrained=weights, image_resize_mode=self.resize
        )
        self._model.eval().to(device)
        self._tokenize = open_clip.get_tokenizer(model)

    @property
    def _name(self) -> str:
        return self.columns[0].name

    @torch.no_grad()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        pixels = torch.stack([self._preprocess(picture) for picture in pictures]).to(self._device)
        seen = self._model.encode_image(pixels, normalize=True).float()
        said = self._model.encode_text(self._tokenize([prompt.text for prompt in prompts]).to(self._device), True)
        return [{self._name: float(cosine)} for cosine in (seen * said.float()).sum(dim=-1)]
