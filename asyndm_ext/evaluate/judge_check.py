"""How often the little world's judge errs, measured in the run itself on scenes whose truth is known.

True pictures of the run's prompts, as they are drawn and after the model's autoencoder (which every picture of the
model comes out of), are held against their own prompt, where "all right" is the answer, and against prompts that are
wrong in one point, where it is not; and so are pictures with an animal or a thing too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asyndm_ext.world.judge import Judge, verdict
from asyndm_ext.world.prompts import wrong_texts
from asyndm_ext.world.scenes import content_of, draw
from asyndm_ext.world.words import read

if TYPE_CHECKING:
    from asyndm_ext.world.model import WorldModel

_BATCH = 50


@dataclass(frozen=True)
class JudgeErrors:
    """Counts of wrong verdicts.

    Attributes:
        scenes: true pictures looked at, once as drawn and once through the autoencoder.
        refused_drawn, refused_decoded: true pictures that were called wrong.
        wrong: prompts wrong in one point that were held against the pictures through the autoencoder.
        accepted: of these, those that were called right.
        doubled: pictures through the autoencoder with an animal or a thing twice that the prompt has once.
        passed: of these, those that were called right.
    """

    scenes: int
    refused_drawn: int
    refused_decoded: int
    wrong: int
    accepted: int
    doubled: int
    passed: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_judge(model: WorldModel, judge: Judge, prompts: Sequence[str], number: int, seed: int = 0) -> JudgeErrors:
    """Judge ``number`` true pictures of the prompts in turn, and as many with something twice."""
    texts = [read(prompts[i % len(prompts)]).text for i in range(number)]
    others = np.random.default_rng(seed)
    refused_drawn = refused_decoded = wrong = accepted = passed = 0
    for start in range(0, number, _BATCH):
        own, drawn, twice = texts[start : start + _BATCH], [], []
        for i, text in enumerate(own, start):
            rng = np.random.default_rng([seed, i])
            content = content_of(text, rng)
            drawn.append(draw(content, rng).image)
            extra = (content.animal, None) if i % 2 or content.thing is None else (None, content.thing)
            twice.append(draw(content, rng, extra=[extra]).image)
        pictures = _pixels(drawn).to(model.device)
        decoded, doubled = model.decode(model.encode(pictures)), _through(model, twice)
        for text, plainly, seen, more in zip(
            own, judge.see(pictures.cpu()), judge.see(decoded.cpu()), judge.see(doubled.cpu()), strict=True
        ):
            refused_drawn += not verdict(plainly, text).exact
            refused_decoded += not verdict(seen, text).exact
            passed += verdict(more, text).exact
            for other in wrong_texts(text, others):
                wrong += 1
                accepted += verdict(seen, other).exact
    return JudgeErrors(number, refused_drawn, refused_decoded, wrong, accepted, number, passed)


def _pixels(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def _through(model: WorldModel, images: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures encoded and decoded."""
    return model.decode(model.encode(_pixels(images).to(model.device)))
