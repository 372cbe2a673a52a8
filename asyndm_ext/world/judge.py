"""The judge of the little world: a small network that says what is in a picture, trained on true scenes.

    python -m asyndm_ext.world.judge --out judging --model training/export

It learns on scenes as the world has them, on scenes with something too many or missing, as drawn and after the model's
autoencoder. What it gets wrong is measured on scenes that it never saw (:func:`errors`), duplicates among them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.model import WEIGHTS, WorldModel, load_world
from asyndm_ext.world.scenes import Content, Item, draw, random_content
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import MOST, SceneText

FILE = "judge.safetensors"
_KINDS = (*ANIMALS, *THINGS)
_COUNTS = MOST + 2  # none, one, two, three, more
_HEADS = {
    "counts": len(_KINDS) * _COUNTS,
    "ground": len(GROUNDS),
    "light": len(LIGHTS),
    "paint": len(PAINTS),
    "uses": 2,
}
_UNKNOWN = -100  # cross_entropy's mark for "do not count this"


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

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 160)) -> None:
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
        self.heads = nn.Sequential(nn.Linear(2 * before, 256), nn.ReLU(), nn.Linear(256, sum(_HEADS.values())))

    def forward(self, pictures: Tensor) -> Tensor:
        found = self.features(pictures * 2 - 1)
        return self.heads(torch.cat([found.amax(dim=(-2, -1)), found.mean(dim=(-2, -1)) * 4], dim=1))

    @torch.no_grad()
    def see(self, pictures: Tensor) -> list[Seen]:
        """What is in each picture ``(B,3,H,W)``."""
        parts = dict(zip(_HEADS, self(pictures).split(list(_HEADS.values()), dim=1), strict=True))
        counts = parts["counts"].unflatten(1, (len(_KINDS), _COUNTS)).argmax(-1).tolist()
        best = {name: part.argmax(1).tolist() for name, part in parts.items() if name != "counts"}
        return [
            Seen(
                {kind: n for kind, n in zip(_KINDS, own, strict=True) if n},
                list(GROUNDS)[best["ground"][row]],
                list(LIGHTS)[best["light"][row]],
                list(PAINTS)[best["paint"][row]],
                bool(best["uses"][row]),
            )
            for row, own in enumerate(counts)
        ]


# --- what it learns from --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A picture ``(H,W,3)`` uint8 and the answers."""

    image: NDArray[np.uint8]
    counts: list[int]
    rest: list[int]


def _any_content(rng: np.random.Generator) -> tuple[Content, list[Item]]:
    """A scene as it usually is, or one that mixes everything, half of these with something more than is said."""
    if rng.random() < 0.3:
        return random_content(rng), []
    kind = int(rng.integers(4))
    content = Content(
        animal=None if kind == 0 else str(rng.choice(list(ANIMALS))),
        count=int(rng.integers(1, MOST + 1)) if kind == 1 else 1,
        thing=None if kind == 1 else str(rng.choice(list(THINGS))),
        uses=kind == 3,
        paint=str(rng.choice(list(PAINTS))),
        ground=str(rng.choice(list(GROUNDS))),
        light=str(rng.choice(list(LIGHTS))),
    )
    extra: list[Item] = []
    if rng.random() < 0.55:
        for _ in range(1 if rng.random() < 0.7 else 2):
            own = content.animal if rng.random() < 0.5 and content.animal else str(rng.choice(list(ANIMALS)))
            thing = content.thing if rng.random() < 0.5 and content.thing else str(rng.choice(list(THINGS)))
            extra.append((own, None) if rng.random() < 0.65 else (None, thing))
    return content, extra


def example(*seed: int) -> Example:
    """The example of a seed."""
    rng = np.random.default_rng(seed)
    content, extra = _any_content(rng)
    made = draw(content, rng, extra=extra)
    counts = dict.fromkeys(_KINDS, 0)
    items = [(content.animal, None)] * (content.count if content.animal else 0) + [(None, content.thing)] + extra
    for name in (name for item in items for name in item if name):
        counts[name] += 1
    clear = not extra
    rest = [
        list(GROUNDS).index(content.ground),
        list(LIGHTS).index(content.light),
        list(PAINTS).index(content.paint) if content.thing and content.paint and clear else _UNKNOWN,
        int(content.uses) if content.thing and content.animal and clear else _UNKNOWN,
    ]
    return Example(made.image, [min(n, _COUNTS - 1) for n in counts.values()], rest)


def _stack(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.from_numpy(np.stack([one.image for one in examples])).permute(0, 3, 1, 2)
    return images, torch.tensor([one.counts for one in examples]), torch.tensor([one.rest for one in examples])


def _loss(logits: Tensor, counts: Tensor, rest: Tensor) -> Tensor:
    parts = logits.split(list(_HEADS.values()), dim=1)
    loss = F.cross_entropy(parts[0].unflatten(1, (len(_KINDS), _COUNTS)).flatten(0, 1), counts.flatten()) * 6
    for part, answer in zip(parts[1:], rest.unbind(1), strict=True):
        if bool((answer != _UNKNOWN).any()):
            loss = loss + F.cross_entropy(part, answer, ignore_index=_UNKNOWN) * 0.3
    return loss


def _roughened(images: Tensor, model: WorldModel | None, generator: torch.Generator) -> Tensor:
    """Pictures as they are, after the autoencoder, or with a little noise; mirrored or not."""
    pictures = images.float() / 255
    mirrored = torch.rand(len(pictures), generator=generator) < 0.5
    pictures[mirrored] = pictures[mirrored].flip(-1)
    if model is not None:
        through = torch.rand(len(pictures), generator=generator) < 0.6
        latents = model.encode(pictures[through])
        noise = torch.randn(latents.shape, generator=generator) * 0.08
        pictures[through] = model.decode(latents + noise)
    pictures += (
        0.02
        * torch.randn(pictures.shape, generator=generator)
        * torch.rand(len(pictures), 1, 1, 1, generator=generator)
    )
    return pictures.clamp(0, 1)


def train(model: WorldModel | None, steps: int, held: int, seed: int = 0, batch: int = 32) -> Judge:
    """A judge that has seen ``held`` scenes, each several times in other ways, and new ones as it goes."""
    torch.manual_seed(seed)
    judge = Judge()
    images, counts, rest = _stack([example(seed, 1, i) for i in range(held)])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    fresh = 4
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * max(0.01, 1 - step / steps)
        new = _stack([example(seed, 2, step * fresh + i) for i in range(fresh)])
        slots = torch.randint(held, (fresh,), generator=generator)
        images[slots], counts[slots], rest[slots] = new
        rows = torch.randint(held, (batch,), generator=generator)
        loss = _loss(judge(_roughened(images[rows], model, generator)), counts[rows], rest[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"judge step {step + 1}: loss {loss.item():.4f}", flush=True)
    return judge.eval()


# --- its own errors -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Of how many pictures the judge said what is not so.

    Attributes:
        scenes: true scenes looked at, as drawn and after the autoencoder.
        drawn, decoded: of these, those whose own text was called wrong.
        doubled: scenes with an animal or a thing more than their text says.
        accepted: of these, those whose text was called right.
    """

    scenes: int
    drawn: int
    decoded: int
    doubled: int
    accepted: int


def errors(judge: Judge, model: WorldModel, number: int, seed: int = 10**6) -> Errors:
    """Measure on scenes that no training has seen."""
    drawn = decoded = accepted = doubled = 0
    for start in range(0, number, 50):
        contents, images, twice = [], [], []
        for i in range(start, min(start + 50, number)):
            rng = np.random.default_rng([seed, i])
            content = _any_content(rng)[0]
            contents.append(content)
            images.append(draw(content, rng).image)
            animal = content.animal if content.animal and (i % 2 or not content.thing) else None
            twice.append(draw(content, rng, extra=[(animal, None if animal else content.thing)]).image)
        texts = [content.told(paint=content.thing is not None) for content in contents]
        true = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        more = torch.from_numpy(np.stack(twice)).permute(0, 3, 1, 2).float() / 255
        through = model.decode(model.encode(true))
        drawn += sum(not verdict(s, t).exact for s, t in zip(judge.see(true), texts, strict=True))
        decoded += sum(not verdict(s, t).exact for s, t in zip(judge.see(through), texts, strict=True))
        seen = judge.see(model.decode(model.encode(more)))
        accepted += sum(verdict(s, t).exact for s, t in zip(seen, texts, strict=True))
        doubled += len(contents)
    return Errors(number, drawn, decoded, doubled, accepted)


def load_judge(folder: Path = WEIGHTS) -> Judge:
    """The trained judge."""
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"no {FILE} in {folder}; train one: python -m asyndm_ext.world.judge --out {folder}")
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(folder / FILE).items()})
    return judge.requires_grad_(False).eval()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--model", type=Path, default=WEIGHTS, help="folder of the model's weights")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--held", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=2000, help="to measure its errors on")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = load_world(options.model)
    judge = train(model, options.steps, options.held)
    options.out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, options.out / FILE)
    print(json.dumps(asdict(errors(judge, model, options.scenes))), flush=True)


if __name__ == "__main__":
    main()
