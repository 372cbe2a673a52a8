"""Pictures of the embedded model, several at a time: one network call a step for all of them.

The pictures of a batch share all settings but prompt, objects and seed. Each has its noise, its attention and its masks
for itself, so it is the picture that its job gives alone, up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.embedded.controls import Control, controlled
from asyndm_ext.embedded.job import Job, Variant
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.machine.transfer import sent
from asyndm_ext.region.regions import AverageAttention, FixedRegion, Region, region_for
from asyndm_ext.region.strengths import Strengths, strengths_for
from asyndm_ext.rivals.cfgpp import equivalent_scales
from asyndm_ext.rivals.choice import Rival
from asyndm_ext.run import FromHost, Run, StepRecord
from asyndm_ext.solvers import SOLVERS

if TYPE_CHECKING:
    from asyndm_ext.world.model import WorldModel

_KARRAS_RHO = 7.0


@dataclass(frozen=True)
class Batch:
    """Finished pictures.

    Attributes:
        latents: ``(B,C,h,w)``.
        average: the objects' attention, averaged over the calls of a plain pass, ``(B,n,h',w')``, if it was asked for.
        seconds: wall time of the sampling loop.
        scales: the equivalent CFG scale of each step, or of each model call, ``(B,n)``; n is 0 where it is not known.
    """

    latents: Tensor
    average: Tensor | None
    seconds: float
    scales: Tensor


class Steps(Protocol):
    """The part of a job that decides the noise levels."""

    @property
    def steps(self) -> int: ...

    @property
    def scheduler(self) -> str: ...

    @property
    def walks_timesteps(self) -> bool:
        """Whether the solver counts noise in timesteps; else it does in sigmas."""


def base_schedule(job: Job, table: NoiseTable) -> BaseSchedule:
    """The noise levels as the WebUI lays them out for this solver."""
    return SOLVERS[job.solver].schedule(webui_arguments(job, table))


def webui_arguments(job: Steps, table: NoiseTable) -> dict[str, Any]:
    """What the WebUI would hand to this solver."""
    train = len(table.log_sigmas)
    if job.walks_timesteps:
        timesteps = (torch.arange(0, train, train // job.steps) + 1).clamp(max=train - 1)
        # UniPC's order; it cannot be above the number of steps.
        return {"timesteps": timesteps, "alphas_cumprod": table.alphas_cumprod, "order": min(3, len(timesteps))}
    low, high = table.log_sigmas[0], table.log_sigmas[-1]
    share = torch.linspace(0, 1, job.steps, dtype=torch.float64)
    if job.scheduler == "karras":
        root_low, root_high = (low / _KARRAS_RHO).exp(), (high / _KARRAS_RHO).exp()
        sigmas = (root_high + share * (root_low - root_high)) ** _KARRAS_RHO
    elif job.scheduler == "exponential":
        sigmas = (high + share * (low - high)).exp()
    else:
        if job.scheduler == "SGM uniform":
            t = torch.linspace(train - 1, 0, job.steps + 1, dtype=torch.float64)[:-1]
        elif job.scheduler == "beta":
            # As Neo, reForge and Classic lay them out; AUTOMATIC1111 and Forge spread sigmas in place of timesteps.
            t = (beta_quantile(1 - torch.arange(job.steps) / job.steps) * (train - 1)).round()
        else:
            t = (1 - share) * (train - 1)
        below = t.floor().long()
        above = (below + 1).clamp(max=train - 1)
        sigmas = torch.lerp(table.log_sigmas[below], table.log_sigmas[above], t - below).exp()
    return {
        "sigmas": torch.cat([sigmas, sigmas.new_zeros(1)]),
        "sigma_min": low.exp(),
        "sigma_max": high.exp(),
        "n": job.steps,
    }


def beta_quantile(share: Tensor, shape: float = 0.6) -> Tensor:
    """Where shares ``(n,)`` of a symmetric Beta distribution lie, float64 (arXiv:2407.12173 has 0.6)."""
    angle = torch.linspace(0, math.pi / 2, 100_001, dtype=torch.float64)
    middle = (angle[1:] + angle[:-1]) / 2
    below = torch.cumsum((middle.sin() * middle.cos()) ** (2 * shape - 1), 0)  # with sin^2 in place of the variable
    below = torch.cat([below.new_zeros(1), below / below[-1]])
    high = torch.searchsorted(below, share.double()).clamp(1, len(below) - 1)
    between = (share - below[high - 1]) / (below[high] - below[high - 1])
    return torch.lerp(angle[high - 1], angle[high], between).sin().square()


def variant_region(
    jobs: Sequence[Job],
    variant: Variant,
    shape: tuple[int, int, int, int],
    average: Tensor | None = None,
    see: Callable[[Tensor], object] | None = None,
) -> Region:
    """The one thing in which the variants differ.

    Args:
        jobs: of the batch.
        average: attention of a plain pass, for a fixed mask.
        see: called with the objects' cells.
    """
    job = jobs[0]
    if variant == "asyndm":
        mask = job.slow_fraction((shape[-2], shape[-1])) if job.settings.uses_mask else None
        strengths = strengths_of(jobs) if job.settings.uses_words else None
        return region_for(job.settings, shape, strengths, mask, average, see)
    return FixedRegion.everything(shape, job.settings.strength if variant == "concave" else 0.0)


def own_noise(seeds: Sequence[int]) -> Callable[[torch.Size | Sequence[int]], Tensor]:
    """Normals of a shape ``(B,...)``, each row from the generator of its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normals(shape: torch.Size | Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(tuple(shape[1:]), generator=generator) for generator in generators])

    return normals


def run_batch(
    model: WorldModel,
    jobs: Sequence[Job],
    variant: Variant,
    *,
    average: Tensor | None = None,
    keep_average: bool = False,
    callback: Callable[[dict[str, Any]], None] | None = None,
    watch: Callable[[StepRecord], None] | None = None,
    control: Control | None = None,
    eta: float | None = None,
    rival: Rival | None = None,
    see: Callable[[Tensor], object] | None = None,
) -> Batch:
    """Sample the pictures of several jobs at once.

    Args:
        model: the embedded model, or one of its kind.
        jobs: alike in everything but prompt, seed and the objects' words.
        variant: which pixels are slow.
        average: attention of the jobs' plain pass, for a fixed mask, else ignored; where it is needed
            and absent, the plain pass is made here.
        keep_average: average the attention of this pass, which has to be the plain one.
        callback: the solver's, called in every step with k-diffusion's dictionary.
        watch: called with the record of every step.
        control: lag this instead of the region that the settings say.
        eta: noise weight of DDIM and the ancestral solvers; None: each one's own.
        rival: another method, which changes the sampler's step or the guidance; together with AsynDM if that is the
            variant.
        see: called with the objects' cells ``(B,n,h',w')`` of every mask.

    Raises:
        ValueError: the jobs differ in more than they may, or the rival cannot be had with their solver.
    """
    shared = _shared(jobs)
    assert not keep_average or variant == "plain"
    if not (variant == "asyndm" and shared.finds_a_fixed_mask):
        average = None  # of no use here, and a region takes it for the order to stay fixed
    elif average is None:
        average = run_batch(model, jobs, "plain", keep_average=True).average
    table = NoiseTable.from_alphas_cumprod(model.alphas_cumprod)
    solver = SOLVERS[shared.solver] if rival is None else rival.solver(shared.solver)
    arguments = {**webui_arguments(shared, table), "eta": eta}
    base = solver.schedule(arguments)
    shape = (len(jobs), 1, shared.height // model.latent_factor, shared.width // model.latent_factor)

    # One generator for the starting noise and what ancestral solvers draw later: the same for all variants.
    normals = own_noise([job.seed for job in jobs])
    x = normals((shape[0], model.latent_channels, *shape[-2:])).to(model.device)
    if solver.space == "sigma":
        x = x * base.nominal(0)

    looks_for_objects = keep_average or (variant == "asyndm" and shared.settings.uses_words)
    region = AverageAttention(shape) if keep_average else variant_region(jobs, variant, shape, average, see)
    if control is not None:
        region = controlled(control, region, shape, shared.settings.strength, [job.seed for job in jobs])
    guidance, scales, levels = shared.guidance * solver.guidance, list[Tensor](), list[Tensor]()
    guided = GuidedUNet(
        model.unet,
        model.encode_prompt([job.prompt for job in jobs]),
        model.encode_prompt([""] * len(jobs)),
        guidance,
        table,
        model.prediction_type,
        solver.space,
        columns=_columns(jobs) if looks_for_objects else None,
        halvings=model.attention_halvings,
        rival=rival,
        log=scales.append,
        effect=variant == "asyndm" and shared.settings.uses_guidance,
    )

    def look(record: StepRecord) -> None:
        levels.append(record.level)
        if watch is not None:
            watch(record)

    run = Run(
        guided,
        PixelSchedule(base, shape, shared.settings.curve),
        region,
        x,
        FromHost(
            randn_like=lambda like: sent(normals(like.shape), like.device).to(like.dtype),
            table=table,
            callback=callback,
            watch=look,
        ),
    )
    sample = solver.sample if rival is None else rival.sample(solver, guidance, scales.append)
    with guided.attached():
        started = time.perf_counter()
        latents = sample(run, x, **solver.chosen(arguments))
        seconds = time.perf_counter() - started
    if not bool(torch.isfinite(latents).all()):
        raise RuntimeError("the sampled picture is not finite (NaN in the model?)")
    if solver.uncond:
        scales = equivalent_scales([*levels, run.schedule.level], solver, guidance, eta, table)
    elif not scales:
        scales = [torch.full((len(jobs),), guidance)] * len(levels)
    found = torch.stack([one.cpu().float() for one in scales], dim=1) if scales else torch.zeros(len(jobs), 0)
    return Batch(latents, region.maps if isinstance(region, AverageAttention) else None, seconds, found)


def _shared(jobs: Sequence[Job]) -> Job:
    """The job with the most objects, if the others are like it as far as they go."""
    longest = max(jobs, key=lambda job: len(job.settings.objects))
    strengths = _strengths(longest)

    def common(job: Job) -> tuple[Any, ...]:
        return replace(job.settings, objects=()), job.steps, job.solver, job.scheduler, job.guidance, job.size

    for job in jobs:
        own = _strengths(job)
        if common(job) != common(longest) or own != strengths[: len(own)]:
            raise ValueError("the jobs of a batch may differ in prompt, seed and the words of their objects only")
    return longest


def strengths_of(jobs: Sequence[Job]) -> Strengths:
    """Of the objects of each job, over the steps."""
    most = max(len(job.settings.objects) for job in jobs)
    specs, places = [], []
    for job in jobs:
        none = [None] * (most - len(job.settings.objects))
        specs.append([*job.settings.objects, *none])
        places.append([*map(tuple, job.columns), *none])
    return strengths_for(jobs[0].settings, specs, places)


def _strengths(job: Job) -> list[float]:
    """Of each object."""
    return [job.settings.strength if spec.strength is None else spec.strength for spec in job.settings.objects]


def _columns(jobs: Sequence[Job]) -> list[list[list[int]]]:
    """Text columns per job and object; a job with fewer objects than others gets objects that are nowhere."""
    most = max(len(job.settings.objects) for job in jobs)
    return [job.columns + [[] for _ in range(most - len(job.settings.objects))] for job in jobs]
