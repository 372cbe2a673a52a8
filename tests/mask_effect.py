"""Do other masks draw more right pictures of the little world? The ways to make them that
`python -m tests.mask_quality --remedies` looks at, tried on results.

    python -m tests.mask_effect --prompts 300 --out effect.jsonl

Draws plain pictures of unusual prompts and the same from the same noise with each arm's masks, lets the judge say which
are right, and prints how many more are than plain ones, with bootstrap intervals. A file that is there is gone on with.

- as it is: the product's masks; smoothed: by a cell; an eighth: each object has an eighth of the picture at least;
- spread: attention spread by the network's self-attention, as S-CFG does it;
- plain pass: from a plain pass of as many steps; short plain pass: of four steps only;
- painted: where the animal and the thing stand in a drawn scene of this prompt, from the first step on;
- another's: the same of the next prompt's scene, which has nothing to do with this one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.embedded import batch
from asyndm_ext.embedded.job import Job, automatic_objects
from asyndm_ext.evaluate.prompts import little_world
from asyndm_ext.evaluate.statistics import Bootstrap
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.settings import Settings
from asyndm_ext.world.judge import Judge, load_judge, verdict
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.scenes import scene
from asyndm_ext.world.words import read
from tests.mask_quality import covered
from tests.self_attention import Spreading

BATCH = 20
SHORT = 4
"""Steps of the short plain pass."""


@dataclass(frozen=True)
class Arm:
    """One way to make masks: settings, and what else is done."""

    settings: dict[str, object]
    how: str = ""


ARMS = {
    "as it is": Arm({}),
    "smoothed": Arm({"smoothing": 1.0}),
    "an eighth": Arm({"min_area": 0.125}),
    "spread": Arm({}, "spread"),
    "plain pass": Arm({"mask_source": "fixed"}),
    "short plain pass": Arm({"mask_source": "fixed"}, "short"),
    "painted": Arm({}, "painted"),
    "another's": Arm({}, "another's"),
}


def painted(jobs: Sequence[Job], factor: int, shift: int) -> Tensor:
    """The strength map ``(B,1,h,w)`` of a drawn scene of each prompt, or of one that stands so many places from it."""
    jobs = [*jobs[shift:], *jobs[:shift]]
    masks = [covered(scene(read(job.prompt).text, job.seed), factor) for job in jobs]
    return torch.stack(masks).unsqueeze(1).double() * jobs[0].settings.strength


def latents(model: WorldModel, jobs: Sequence[Job], how: str, eta: float | None) -> Tensor:
    if how == "spread":
        with mock.patch.object(batch, "GuidedUNet", Spreading):
            return batch.run_batch(model, jobs, "asyndm", eta=eta).latents
    if how in ("painted", "another's"):
        region = FixedRegion(painted(jobs, model.latent_factor, shift=int(how != "painted")))
        with mock.patch.object(batch, "variant_region", lambda *_: region):
            return batch.run_batch(model, jobs, "asyndm", eta=eta).latents
    average = None
    if how == "short":
        few = [replace(job, steps=SHORT) for job in jobs]
        average = batch.run_batch(model, few, "plain", keep_average=True, eta=eta).average
    return batch.run_batch(model, jobs, "plain" if how == "plain" else "asyndm", average=average, eta=eta).latents


def judged(model: WorldModel, judge: Judge, jobs: Sequence[Job], how: str, eta: float | None) -> list[bool]:
    seen = judge.see(model.decode(latents(model, jobs, how, eta)).cpu())
    return [verdict(one, read(job.prompt).text).exact for one, job in zip(seen, jobs, strict=True)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--prompts-seed", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=600_000, help="of the noise (%(default)s)")
    parser.add_argument("--solver", default="DDIM")
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.3, 1.0])
    parser.add_argument("--curves", nargs="+", default=["quadratic"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, required=True, help="what is done is kept here, a line for each batch")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    model, judge = load_world(), load_judge()
    texts = [prompt.text for prompt in little_world(options.prompts, ["unusual"], options.prompts_seed)]

    def jobs(numbers: Sequence[int], **own: object) -> list[Job]:
        made = []
        for k in numbers:
            settings = Settings(enabled=True, objects=tuple(map(ObjectSpec, automatic_objects(texts[k]))), **own)  # type: ignore[arg-type]
            seed = options.first_seed + k
            made.append(Job(texts[k], seed, settings, options.steps, options.solver, guidance=options.guidance))
        return made

    todo: dict[str, tuple[dict[str, object], str]] = {"plain": ({}, "plain")}
    for curve in options.curves:
        for strength in options.strengths:
            for name in options.arms:
                own = {**ARMS[name].settings, "strength": strength, "curve": curve}
                todo[f"{name}, {curve} {strength:g}"] = own, ARMS[name].how
    done = {}
    if options.out.exists():
        lines = options.out.read_text(encoding="utf-8").splitlines()
        done = {(one["arm"], one["first"]): one["right"] for one in map(json.loads, lines)}
    numbers = range(options.prompts)
    for first in range(0, options.prompts, BATCH):
        for name, (own, how) in todo.items():
            if (name, first) in done:
                continue
            right = judged(model, judge, jobs(numbers[first : first + BATCH], **own), how, options.eta)
            done[name, first] = right
            with options.out.open("a", encoding="utf-8") as file:
                print(json.dumps({"arm": name, "first": first, "right": right}), file=file)
    report({name: [one for at in range(0, options.prompts, BATCH) for one in done[name, at]] for name in todo})


def report(right: dict[str, list[bool]]) -> None:
    """A row for each arm: how many are right, and how many more than plain ones with a 95 % interval, in points."""
    plain = np.array(right.pop("plain"), dtype=float)
    print(f"{len(plain)} pairs, plain {plain.mean():.1%} right")
    bootstrap = Bootstrap(len(plain))
    for name, own in right.items():
        told = bootstrap.compare(plain, np.array(own, dtype=float))
        low, high = (100 * edge for edge in (told.low, told.high))
        more = f"{100 * told.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        print(f"| {name} | {told.mean:.1%} | {more} | {told.better}, {told.worse} |")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
