"""The judge of the little world: a small network that says what is in a picture.

:mod:`asyndm_ext.world.train_judge` trains it on true scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.model import WEIGHTS
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import MOST, SceneText

FILE = "judge.safetensors"
KINDS = (*ANIMALS, *THINGS)
COUNTS = MOST + 2  # none, one, two, three, more
HEADS = {
    "counts": len(KINDS) * COUNTS,
    "ground": len(GROUNDS),
    "light": len(LIGHTS),
    "paint": len(PAINTS),
    "uses": 2,
}


@dataclass(frozen=True)
class Seen:
    """What the judge sees in a picture. ``counts``: of each animal and thing that is there at all."""

    counts: dict[str, int]
    ground: str
    light: str
    paint: str
    uses: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what the prompt says: in all, and in each of its points; None: the prompt leaves it open.

    Attributes:
        animal: this animal, as many as said, and no other.
        thing: this thing once, and no other.
        uses: the one uses the other, or stands beside it.
    """

    animal: bool
    thing: bool
    uses: bool | None
    paint: bool | None
    ground: bool | None
    light: bool | None

    @property
    def exact(self) -> bool:
        return all(point is not False for point in vars(self).values())


def verdict(seen: Seen, text: SceneText) -> Verdict:
    """Hold what is seen against what was asked for."""
    animals = {name: n for name, n in seen.counts.items() if name in ANIMALS}
    things = {name: n for name, n in seen.counts.items() if name in THINGS}
    animal = animals == ({text.animal: text.count} if text.animal else {})
    thing = things == ({text.thing: 1} if text.thing else {})
    both = text.animal is not None and text.thing is not None and animal and thing
    return Verdict(
        animal,
        thing,
        seen.uses == text.uses if both else None,
        seen.paint == text.paint if text.paint and thing else None,
        seen.ground == text.ground if text.ground else None,
        seen.light == text.light if text.light else None,
    )


class Judge(nn.Module):
    """Pictures ``(B,3,128,128)`` in [0, 1] to logits of all heads, side by side."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3 * 4
        layers.append(nn.PixelUnshuffle(2))
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        layers += [nn.Conv2d(before, before, 3, padding=1), nn.BatchNorm2d(before), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        # Sums as well as maxima: how many there are, and whether there is one.
        self.heads = nn.Sequential(nn.Linear(2 * before, 256), nn.ReLU(), nn.Linear(256, sum(HEADS.values())))

    def forward(self, pictures: Tensor) -> Tensor:
        found = self.features(pictures * 2 - 1)
        return self.heads(torch.cat([found.amax(dim=(-2, -1)), found.mean(dim=(-2, -1)) * 4], dim=1))

    @torch.no_grad()
    def see(self, pictures: Tensor) -> list[Seen]:
        """What is in each picture ``(B,3,H,W)``."""
        logits = self(pictures) + self(pictures.flip(-1))  # a world in the mirror is the same world
        parts = dict(zip(HEADS, logits.split(list(HEADS.values()), dim=1), strict=True))
        counts = parts["counts"].unflatten(1, (len(KINDS), COUNTS)).argmax(-1).tolist()
        best = {name: part.argmax(1).tolist() for name, part in parts.items() if name != "counts"}
        return [
            Seen(
                {kind: n for kind, n in zip(KINDS, own, strict=True) if n},
                list(GROUNDS)[best["ground"][row]],
                list(LIGHTS)[best["light"][row]],
                list(PAINTS)[best["paint"][row]],
                bool(best["uses"][row]),
            )
            for row, own in enumerate(counts)
        ]


def load_judge(folder: Path = WEIGHTS) -> Judge:
    """The trained judge."""
    if not (folder / FILE).is_file():
        raise FileNotFoundError(
            f"no {FILE} in {folder}; train one: python -m asyndm_ext.world.train_judge --out {folder}"
        )
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(folder / FILE).items()})
    return judge.requires_grad_(False).eval()
