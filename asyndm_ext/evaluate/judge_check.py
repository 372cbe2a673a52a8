"""How often the small world's judge errs, measured in the run itself on scenes whose truth is known.

True pictures of the run's prompts, as they are drawn and after the model's autoencoder (which every picture of the
model comes out of), are held against their own prompt, where "all right" is the answer, and against prompts that are
wrong in one point, where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from asyndm_ext.embedded.judge import judge_found, view
from asyndm_ext.embedded.reading import read_text
from asyndm_ext.embedded.scenes import COLOURS, RELATIONS, SHAPES, Group, SceneText, scene_from_text

if TYPE_CHECKING:
    from asyndm_ext.embedded.model import TinyModel

_OPPOSITE = dict(zip(RELATIONS, ("to the right of", "to the left of", "below", "above"), strict=True))


@dataclass(frozen=True)
class JudgeErrors:
    """Counts of wrong verdicts.

    Attributes:
        scenes: true pictures looked at, once as drawn and once through the autoencoder.
        refused_drawn, refused_decoded: true pictures that were called wrong.
        wrong: prompts wrong in one point that were held against the pictures through the autoencoder.
        accepted: of these, those that were called right.
    """

    scenes: int
    refused_drawn: int
    refused_decoded: int
    wrong: int
    accepted: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_judge(model: TinyModel, prompts: Sequence[str], number: int, size: int = 128, seed: int = 0) -> JudgeErrors:
    """Judge ``number`` true pictures of the prompts in turn."""
    texts = [read_text(prompts[i % len(prompts)]) for i in range(number)]
    drawn = np.stack([scene_from_text(text, seed, i, size=size).image for i, text in enumerate(texts)])
    rng = np.random.default_rng(seed)
    refused_drawn = refused_decoded = wrong = accepted = 0
    for text, image, decoded in zip(texts, drawn, _through(model, drawn), strict=True):
        refused_drawn += not judge_found(view(image), text).exact
        seen = view(decoded)
        refused_decoded += not judge_found(seen, text).exact
        for other in wrong_texts(text, rng):
            wrong += 1
            accepted += judge_found(seen, other).exact
    return JudgeErrors(number, refused_drawn, refused_decoded, wrong, accepted)


def _through(model: TinyModel, images: NDArray[np.uint8], batch: int = 32) -> NDArray[np.uint8]:
    """Pictures (B, H, W, 3) encoded and decoded."""
    decoded = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).float() / 255
        decoded.append(model.decode(model.encode(pixels.to(model.device))).permute(0, 2, 3, 1).cpu())
    return (torch.cat(decoded) * 255).round().to(torch.uint8).numpy()


def wrong_texts(text: SceneText, rng: np.random.Generator) -> list[SceneText]:
    """The text with one thing changed: a colour, a shape, one object less or more, the relation, the ground."""
    which = int(rng.integers(len(text.groups)))
    group = text.groups[which]
    taken = {(one.colour, one.shape) for one in text.groups}
    colours = [c for c in COLOURS if (c, group.shape) not in taken and c != text.ground]
    shapes = [s for s in SHAPES if (group.colour, s) not in taken]

    def with_group(new: Group) -> SceneText:
        return replace(text, groups=(*text.groups[:which], new, *text.groups[which + 1 :]))

    wrong = [
        with_group(replace(group, colour=str(rng.choice(colours)))),
        with_group(replace(group, shape=str(rng.choice(shapes)))),
        with_group(replace(group, count=group.count % 3 + 1)),
    ]
    if text.relation is not None:
        wrong.append(replace(text, relation=_OPPOSITE[text.relation]))
    if text.ground is not None:
        wrong.append(replace(text, ground=str(rng.choice([c for c in COLOURS if c != text.ground]))))
    return wrong
