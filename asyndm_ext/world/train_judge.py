"""Training of the little world's judge, and what it gets wrong.

    python -m asyndm_ext.world.train_judge --out judging --model training/export

It learns on scenes as the world has them, on scenes with something too many or missing, as drawn and after the model's
autoencoder. What it gets wrong is measured on scenes that it never saw (:func:`errors`), duplicates among them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.judge import COUNTS, FILE, HEADS, KINDS, Judge, load_judge, verdict
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.model import WEIGHTS, WorldModel, load_world
from asyndm_ext.world.scenes import Content, Item, draw, random_content
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import MOST

_UNKNOWN = -100  # cross_entropy's mark for "do not count this"


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
    counts = dict.fromkeys(KINDS, 0)
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
    return Example(made.image, [min(n, COUNTS - 1) for n in counts.values()], rest)


def examples_of(seed: int, numbers: range) -> list[Example]:
    """The examples of these numbers, drawn here and now."""
    return [example(seed, number) for number in numbers]


def _stack(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.from_numpy(np.stack([one.image for one in examples])).permute(0, 3, 1, 2)
    return images, torch.tensor([one.counts for one in examples]), torch.tensor([one.rest for one in examples])


def _loss(logits: Tensor, counts: Tensor, rest: Tensor) -> Tensor:
    parts = logits.split(list(HEADS.values()), dim=1)
    loss = F.cross_entropy(parts[0].unflatten(1, (len(KINDS), COUNTS)).flatten(0, 1), counts.flatten()) * 6
    for part, answer in zip(parts[1:], rest.unbind(1), strict=True):
        known = (answer != _UNKNOWN).sum().clamp(min=1)
        loss = loss + F.cross_entropy(part, answer, ignore_index=_UNKNOWN, reduction="sum") / known * 0.3
    return loss


class _Held:
    """Scenes to learn from, as drawn and as they come out of the autoencoder; old ones make room for new ones."""

    def __init__(
        self, model: WorldModel | None, seed: int, number: int, drawer: Drawer, device: torch.device | str
    ) -> None:
        self._model, self._seed, self._drawer, self._device = model, seed, drawer, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._on: dict[str, Any] = {"generator": self._generator, "device": device}
        self._made_so_far = 0
        parts = [self._made(min(_TOGETHER, number - start)) for start in range(0, number, _TOGETHER)]
        self.drawn, self.decoded, self.counts, self.rest = (torch.cat(part) for part in zip(*parts, strict=True))

    def _made(self, number: int) -> tuple[Tensor, ...]:
        """The next ones; those after them are begun, if other processes draw."""
        start = self._made_so_far
        self._made_so_far = start + number
        coming = [
            range(first, first + number) for first in range(start, start + number * (1 + self._drawer.ahead), number)
        ]
        self._drawer.begin(self._seed, coming, examples_of)
        made = _stack(self._drawer.made(self._seed, range(start, start + number), examples_of))
        images, counts, rest = (part.to(self._device) for part in made)
        return images, self._through(images), counts, rest

    @torch.no_grad()
    def _through(self, images: Tensor) -> Tensor:
        """After the autoencoder, with more or less noise on the latents."""
        if self._model is None:
            return images
        latents = self._model.encode(images.float() / 255)
        noise = torch.randn(latents.shape, **self._on)
        strength = 0.12 * torch.rand(len(latents), 1, 1, 1, **self._on)
        return (self._model.decode(latents + strength * noise) * 255).round().to(torch.uint8)

    def renew(self, number: int) -> None:
        """New scenes in the place of as many others."""
        new = self._made(number)
        slots = torch.randint(len(self.drawn), (number,), **self._on)
        for held, part in zip((self.drawn, self.decoded, self.counts, self.rest), new, strict=True):
            held[slots] = part

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in [0, 1], mirrored or not, some as drawn and some decoded, a little noisy; and the answers."""
        rows = torch.randint(len(self.drawn), (size,), **self._on)
        decoded = torch.rand(size, 1, 1, 1, **self._on) < 0.6
        pictures = torch.where(decoded, self.decoded[rows], self.drawn[rows]).float() / 255
        mirrored = torch.rand(size, 1, 1, 1, **self._on) < 0.5
        pictures = torch.where(mirrored, pictures.flip(-1), pictures)
        pictures += 0.02 * torch.randn(pictures.shape, **self._on) * torch.rand(size, 1, 1, 1, **self._on)
        return pictures.clamp(0, 1), self.counts[rows], self.rest[rows]


_RATE, _FRESH, _TOGETHER = 2e-3, 4, 50


def train(
    model: WorldModel | None,
    steps: int,
    held: int,
    seed: int = 0,
    batch: int = 32,
    start: Judge | None = None,
    drawer: Drawer | None = None,
    device: torch.device | str = "cpu",
    seconds: float | None = None,
) -> Judge:
    """A judge that has seen ``held`` scenes, each several times in other ways, and new ones as it goes.

    Args:
        model: whose autoencoder's pictures it is to know.
        start: go on from this one, more carefully.
        drawer: of the scenes; without one they are drawn here.
        seconds: as many steps as fit into these, instead of ``steps``.

    Returns:
        The average of the last states, which errs less than each of them.
    """
    torch.manual_seed(seed)
    began = time.monotonic()
    judge = (Judge() if start is None else start).to(device)
    average = torch.optim.swa_utils.AveragedModel(
        judge, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    scenes = _Held(model, seed, held, drawer or Drawer(), device)
    rate = _RATE if start is None else _RATE / 2
    optimizer = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.01)
    losses: list[Tensor] = []
    step, started = 0, time.monotonic()
    while step < steps:
        if seconds and step in (200, 1000, 3000):
            pace = (time.monotonic() - started) / step
            steps = step + int((seconds - (time.monotonic() - began)) / pace)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 100) * max(0.01, 1 - step / steps)
        scenes.renew(_FRESH)
        pictures, counts, rest = scenes.batch(batch)
        loss = _loss(judge(pictures), counts, rest)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(judge)
        losses.append(loss.detach())
        step += 1
        if step % 100 == 0:
            print(f"judge step {step} of {steps}: loss {fmean(one.item() for one in losses):.4f}", flush=True)
            losses = []
    kept: Judge = average.module  # type: ignore[assignment]
    return kept.eval()


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
    device = next(judge.parameters()).device
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
        true, more = (torch.from_numpy(np.stack(one)).to(device).permute(0, 3, 1, 2) / 255 for one in (images, twice))
        through = model.decode(model.encode(true))
        drawn += sum(not verdict(s, t).exact for s, t in zip(judge.see(true), texts, strict=True))
        decoded += sum(not verdict(s, t).exact for s, t in zip(judge.see(through), texts, strict=True))
        seen = judge.see(model.decode(model.encode(more)))
        accepted += sum(verdict(s, t).exact for s, t in zip(seen, texts, strict=True))
        doubled += len(contents)
    return Errors(number, drawn, decoded, doubled, accepted)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--model", type=Path, default=WEIGHTS, help="folder of the model's weights")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--start", type=Path, help="folder of a judge to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, help="as many steps as fit into these")
    parser.add_argument("--processes", type=int, default=0, help="that draw the scenes; 0: the training's own")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=2000, help="to measure its errors on")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = load_world(options.model, options.device)
    start = load_judge(options.start).requires_grad_(True).train() if options.start else None
    with Drawer(options.processes) as drawer:
        judge = train(
            model,
            options.steps,
            options.held,
            options.seed,
            options.batch,
            start,
            drawer,
            options.device,
            options.seconds,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    save_file({name: value.to("cpu").contiguous() for name, value in state.items()}, options.out / FILE)
    print(json.dumps(asdict(errors(judge, model, options.scenes))), flush=True)


if __name__ == "__main__":
    main()
