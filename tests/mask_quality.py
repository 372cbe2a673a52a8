"""How soon the little world's attention, or guidance, knows where the objects are: its masks, step by step and level by
level.

    python -m tests.mask_quality --prompts 128
    python -m tests.mask_quality --prompts 128 --source guidance --grain 0.03125

prints two tables, of the same captions:

- Sampled: for every step of plain pictures, how much of the picture is slow, how much of that still is at the end, and
  how much of what is slow at the end already is. AsynDM only looks; nothing lags. Where the objects of a sampled
  picture truly are nobody knows, so this says when the masks settle, not whether they are right.
- True scenes with noise: the drawn scene of each caption, noised to a timestep, and one call of the network. Here it is
  known which pixels the animal and the thing cover: how much is slow, how much of that is theirs, and how much of
  theirs is slow. The network gets an easier picture than its own would be at that step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.job import Job, automatic_objects
from asyndm_ext.embedded.limits import GUIDANCE
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region import regions
from asyndm_ext.region.regions import region_for
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.pool import pictures
from asyndm_ext.world.scenes import Scene, scene_from_seed

LEAST = 0.001  # a strength at which masks are made and nothing is seen to lag
TIMESTEPS = (999, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0)
BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128, help="how many (%(default)s)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threshold", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=10**6, help="of the scenes (%(default)s)")
    parser.add_argument("--source", choices=("dynamic", "guidance"), default="dynamic", help="of masks (%(default)s)")
    smoothed = "how wide guidance's masks are smoothed, of the picture's side (%(default)s)"
    parser.add_argument("--grain", type=float, default=regions.GRAIN, help=smoothed)
    options = parser.parse_args(argv)
    regions.GRAIN = options.grain
    model, scenes = load_world(), list(scenes_with_both(options.seed, options.prompts))
    own = {"threshold": options.threshold, "mask_source": options.source}
    jobs = [job(scene, number, options.steps, own) for number, scene in enumerate(scenes)]
    sampled(model, jobs)
    noised(model, scenes, jobs)


def scenes_with_both(seed: int, number: int) -> Iterator[Scene]:
    """Scenes with an animal and a thing, as the world usually has them."""
    at = 0
    while number:
        scene = scene_from_seed(seed, at)
        at += 1
        if scene.content.animal and scene.content.thing:
            number -= 1
            yield scene


def job(scene: Scene, seed: int, steps: int, settings: dict[str, Any]) -> Job:
    text = str(scene.content.told())
    objects = tuple(map(ObjectSpec, automatic_objects(text)))
    return Job(text, seed, Settings(enabled=True, objects=objects, strength=LEAST, **settings), steps=steps)


def sampled(model: WorldModel, jobs: Sequence[Job]) -> None:
    parts = []
    for start in range(0, len(jobs), BATCH):
        records: list[StepRecord] = []
        run_batch(model, jobs[start : start + BATCH], "asyndm", watch=records.append)
        parts.append(torch.stack([record.strength[:, 0] > 0 for record in records[:-1]]))
    slow = torch.cat(parts, dim=1)  # (steps,B,h,w); in the very last transition all pixels arrive
    print(f"Sampled, {len(jobs)} pictures\nstep   slow   of it slow in the end   of the end's slow already")
    for step, now in enumerate(slow, start=1):
        print(f"{step:>4} {row(now, slow[-1])}")


def noised(model: WorldModel, scenes: Sequence[Scene], jobs: Sequence[Job]) -> None:
    theirs = torch.stack([covered(scene, model.latent_factor) for scene in scenes])
    print(f"\nTrue scenes with noise, {len(scenes)}; objects cover {theirs.double().mean():.1%}")
    print("timestep   slow   of it objects   of the objects slow")
    for timestep in TIMESTEPS:
        slow = [masks(model, scenes[i : i + BATCH], jobs[i : i + BATCH], timestep) for i in range(0, len(jobs), BATCH)]
        print(f"{timestep:>8} {row(torch.cat(slow), theirs)}")


@torch.no_grad()
def masks(model: WorldModel, scenes: Sequence[Scene], jobs: Sequence[Job], timestep: int) -> Tensor:
    """Which pixels would be slow ``(B,h,w)``, from one call of the network on the scenes with noise."""
    latents = model.encode(pictures(scenes))
    noise = torch.stack(
        [
            torch.randn(x.shape, generator=torch.Generator().manual_seed(j.seed))
            for x, j in zip(latents, jobs, strict=True)
        ]
    )
    alpha = float(model.alphas_cumprod[timestep])
    size = (latents.shape[-2], latents.shape[-1])
    shape = (len(jobs), 1, *size)
    guided = GuidedUNet(
        model.unet,
        model.encode_prompt([job.prompt for job in jobs]),
        model.encode_prompt([""] * len(jobs)),
        GUIDANCE,
        NoiseTable.from_alphas_cumprod(model.alphas_cumprod),
        model.prediction_type,
        "timestep",
        columns=[job.columns for job in jobs] if jobs[0].settings.uses_words else None,
        halvings=model.attention_halvings,
        effect=jobs[0].settings.uses_guidance,
    )
    with guided.attached():
        level = torch.full(shape, float(timestep), dtype=torch.float64)
        guided(alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise, timestep, level)
    region = region_for(jobs[0].settings, shape, [LEAST, LEAST])
    region.observe(guided.attention(), 0.0)
    return region.strength(0.0)[:, 0] > 0


def covered(scene: Scene, factor: int) -> Tensor:
    """The pixels of the latent that its objects cover, at least half of each ``(h,w)``."""
    objects = torch.from_numpy(scene.masks.any(axis=0)).float()
    return F.avg_pool2d(objects[None, None], factor)[0, 0] >= 0.5


def row(slow: Tensor, other: Tensor) -> str:
    """How much is slow, how much of it is also the other, how much of the other is slow."""
    both = (slow & other).double().sum()
    return f"{slow.double().mean():>6.1%} {both / slow.sum():>15.1%} {both / other.sum():>21.1%}"


if __name__ == "__main__":
    main()
