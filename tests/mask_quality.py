"""How soon the little world's attention, or guidance, knows where the objects are: its masks, step by step and level by
level.

    python -m tests.mask_quality --prompts 128
    python -m tests.mask_quality --prompts 128 --source guidance --grain 0.03125

    python -m tests.mask_quality --prompts 96 --remedies

prints two tables, of the same captions (with --remedies the second one, for several ways to make masks):

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
from asyndm_ext.region.masks import MaskOptions, object_weights
from asyndm_ext.region.regions import region_for
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.pool import pictures
from asyndm_ext.world.scenes import Scene, scene_from_seed
from tests.self_attention import Spreading

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
    parser.add_argument("--remedies", action="store_true", help="only true scenes, with several ways to make masks")
    options = parser.parse_args(argv)
    regions.GRAIN = options.grain
    model, scenes = load_world(), list(scenes_with_both(options.seed, options.prompts))
    if options.remedies:
        remedied(model, scenes, [job(scene, number, options.steps, {}) for number, scene in enumerate(scenes)])
        return
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


REMEDIES: dict[str, MaskOptions] = {
    "as it is": MaskOptions(),
    "threshold 0.5": MaskOptions(threshold=0.5),
    "threshold 0.7": MaskOptions(threshold=0.7),
    "threshold 1.5": MaskOptions(threshold=1.5),
    "threshold 2": MaskOptions(threshold=2.0),
    "smoothed by a cell": MaskOptions(smoothing=1.0),
    "smoothed, threshold 0.7": MaskOptions(threshold=0.7, smoothing=1.0),
    "an eighth at least": MaskOptions(min_area=0.125),
}


def remedied(model: WorldModel, scenes: Sequence[Scene], jobs: Sequence[Job]) -> None:
    """For each way to make masks and timestep, how much of what is slow lies on objects, and in brackets how much of
    the objects is slow."""
    theirs = torch.stack([covered(scene, model.latent_factor) for scene in scenes])
    print(
        f"True scenes with noise, {len(scenes)}; objects cover {theirs.double().mean():.1%}\ntimesteps {TIMESTEPS[::2]}"
    )
    rows: dict[str, list[str]] = {}
    for timestep in TIMESTEPS[::2]:
        seen = [looked(model, scenes[i : i + BATCH], jobs[i : i + BATCH], timestep) for i in range(0, len(jobs), BATCH)]
        objects, words, spread = (torch.cat(part).double() for part in zip(*seen, strict=True))
        shares = objects / words.unsqueeze(1)
        made = {name: object_weights(objects, options) for name, options in REMEDIES.items()}
        made["over the words' average"] = object_weights(shares, MaskOptions())
        made["over the average, smoothed"] = object_weights(shares, MaskOptions(smoothing=1.0))
        made["spread by self-attention"] = object_weights(spread, MaskOptions())
        made["spread, threshold 1.5"] = object_weights(spread, MaskOptions(threshold=1.5))
        for name, weights in made.items():
            slow = F.interpolate(weights.amax(1, keepdim=True), theirs.shape[-2:], mode="nearest")[:, 0] > 0
            both = (slow & theirs).double().sum()
            rows.setdefault(name, []).append(f"{100 * both / slow.sum():.0f} ({100 * both / theirs.sum():.0f})")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def looked(model: WorldModel, scenes: Sequence[Scene], jobs: Sequence[Job], timestep: int) -> tuple[Tensor, ...]:
    """The attention to the objects ``(B,2,h,w)``, on average to all words ``(B,h,w)``, and to the objects once more,
    spread by self-attention."""
    spans = [[*job.columns, *([k] for k in range(1, 1 + len(job.prompt.split())))] for job in jobs]
    most = max(map(len, spans))
    maps = _maps(model, scenes, jobs, timestep, [[*own, *[[]] * (most - len(own))] for own in spans])
    count = torch.tensor([len(own) - 2 for own in spans]).view(-1, 1, 1)
    own = [job.columns for job in jobs]
    return maps[:, :2], maps[:, 2:].sum(1) / count, _maps(model, scenes, jobs, timestep, own, Spreading)


def masks(model: WorldModel, scenes: Sequence[Scene], jobs: Sequence[Job], timestep: int) -> Tensor:
    """Which pixels would be slow ``(B,h,w)``, from one call of the network on the scenes with noise."""
    size = model.encode(pictures(scenes[:1])).shape[-2:]
    region = region_for(jobs[0].settings, (len(jobs), 1, *size), [LEAST, LEAST])
    columns = [job.columns for job in jobs] if jobs[0].settings.uses_words else None
    region.observe(_maps(model, scenes, jobs, timestep, columns), 0.0)
    return region.strength(0.0)[:, 0] > 0


@torch.no_grad()
def _maps(
    model: WorldModel,
    scenes: Sequence[Scene],
    jobs: Sequence[Job],
    timestep: int,
    columns: list[list[list[int]]] | None,
    network: type[GuidedUNet] = GuidedUNet,
) -> Tensor:
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
    guided = network(
        model.unet,
        model.encode_prompt([job.prompt for job in jobs]),
        model.encode_prompt([""] * len(jobs)),
        GUIDANCE,
        NoiseTable.from_alphas_cumprod(model.alphas_cumprod),
        model.prediction_type,
        "timestep",
        columns=columns,
        halvings=model.attention_halvings,
        effect=jobs[0].settings.uses_guidance,
    )
    with guided.attached():
        level = torch.full(shape, float(timestep), dtype=torch.float64)
        guided(alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise, timestep, level)
    found = guided.attention()
    assert found is not None
    return found


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
