"""A model that looks at a picture and answers a question, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import MetricUnavailable


class Vlm(Protocol):
    """Whatever answers a question about a picture."""

    def answer(self, picture: Image.Image, question: str, longest: int) -> str:
        """``longest``: tokens of the answer at most."""

    def probability(self, picture: Image.Image, question: str, word: str) -> float:
        """That the answer begins with this word, fraction."""


class LocalVlm:
    """A vision-language model of transformers, e.g. Qwen2.5-VL-7B-Instruct. Answers greedily, so always the same.

    Args:
        weights: the model's folder.
        device: where to compute.
        dtype: of the weights.
    """

    def __init__(self, weights: str, device: str = "cpu", dtype: str = "bfloat16") -> None:
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as missing:
            raise MetricUnavailable(f"this judge needs the package transformers, 4.49 or later ({missing})") from None
        if not (Path(weights) / "config.json").is_file():
            raise MetricUnavailable(f"there is no model in the folder {weights}")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        self._device = device
        self._processor: Any = AutoProcessor.from_pretrained(weights, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            weights, local_files_only=True, torch_dtype=getattr(torch, dtype)
        )
        self._model = model.to(device).eval()

    @torch.no_grad()
    def answer(self, picture: Image.Image, question: str, longest: int) -> str:
        inputs = self._inputs(picture, question)
        tokens = self._model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        fresh = tokens[:, inputs["input_ids"].shape[1] :]
        return self._processor.batch_decode(fresh, skip_special_tokens=True)[0].strip()

    @torch.no_grad()
    def probability(self, picture: Image.Image, question: str, word: str) -> float:
        """By the softmax over all tokens; of a word of several tokens, the first."""
        (token, *_) = self._processor.tokenizer.encode(word, add_special_tokens=False)
        logits = self._model(**self._inputs(picture, question)).logits[0, -1].float()
        return float(logits.softmax(dim=-1)[token])

    def _inputs(self, picture: Image.Image, question: str) -> Any:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._device)
