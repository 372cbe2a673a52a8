"""Pictures of the exact world, sampled by the product's own run, clock, regions and solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.embedded.batch import own_noise, webui_arguments
from asyndm_ext.exact.config import Asked
from asyndm_ext.exact.model import ExactModel
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region.regions import AverageAttention, Between, FixedRegion, Region, region_for
from asyndm_ext.region.strengths import strengths_for
from asyndm_ext.run import FromHost, Run
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS

Slow = Literal["objects", "rest"]
PARTS = tuple(map(ObjectSpec, ("animal", "thing")))
"""What the objects of a picture are called here, whatever kinds they are of, in the order of their pixels."""


@dataclass(frozen=True)
class Conditions:
    """How the host samples.

    Attributes:
        eta: noise weight of DDIM and the ancestral solvers; None: each one's own default.
    """

    solver: str = "Euler"
    scheduler: str = "uniform"
    steps: int = 20
    guidance: float = 5.0
    eta: float | None = None

    @property
    def walks_timesteps(self) -> bool:
        return SOLVERS[self.solver].space == "timestep"


def sample(
    world: ExactWorld,
    asked: Sequence[Asked],
    seeds: Sequence[int],
    conditions: Conditions,
    settings: Settings | None = None,
    slow: Slow = "objects",
    made: Callable[..., ExactModel] = ExactModel,
    region: Region | None = None,
    scheduled: Callable[[BaseSchedule, tuple[int, int, int, int], str], PixelSchedule] = PixelSchedule,
) -> Tensor:
    """Finished latents ``(B,D,1,P)`` float64.

    Args:
        world: where the pictures come from.
        asked, seeds: a prompt and the seed of its noise for each picture.
        conditions: the host's.
        settings: AsynDM's; None: plain sampling.
        slow: which parts lag, where the settings' region is one of objects.
        made: makes the model, to look over its shoulder.
        region: another one than the settings ask for.
        scheduled: makes the levels that a solver walks through, of the host's, the shape of a map and the curve.
    """
    solver = SOLVERS[conditions.solver]
    table = NoiseTable.from_alphas_cumprod(world.alphas_cumprod)
    arguments = {**webui_arguments(conditions, table), "eta": conditions.eta}
    base = solver.schedule(arguments)
    shape = (len(asked), 1, 1, world.config.parts)
    normals = own_noise(seeds)
    x = normals((len(asked), world.config.dimension, 1, world.config.parts)).double()
    if solver.space == "sigma":
        x = x * base.nominal(0)
    guidance = conditions.guidance * solver.guidance
    model = made(world, list(asked), guidance, table, solver.space)
    model.tells_effect = settings is not None and settings.uses_guidance
    run = Run(
        model,
        scheduled(base, shape, settings.curve if settings else "quadratic"),
        region or _region(settings, slow, shape, model),
        x,
        FromHost(randn_like=lambda like: normals(like.shape).to(like), table=table),
    )
    return solver.sample(run, x, **solver.chosen(arguments))


def _region(settings: Settings | None, slow: Slow, shape: tuple[int, int, int, int], model: ExactModel) -> Region:
    if settings is None:
        return FixedRegion.everything(shape, 0.0)
    objects = shape[-1] - 1
    if slow == "rest":
        ground = torch.tensor([settings.strength] + [0.0] * objects)
        region: Region = FixedRegion(ground.expand(shape))
        return Between(region, settings.start, settings.end)
    named = {spec.label: spec for spec in settings.objects}
    specs = [named.get(part.label, part) for part in PARTS[:objects]]
    strengths = strengths_for(settings, [specs], [range(objects)])
    average = None
    if settings.uses_words and settings.mask_source == "fixed":
        looking = AverageAttention(shape)  # what it would find in a plain pass is known beforehand
        looking.observe(model.attention())
        average = looking.maps
    return region_for(settings, shape, strengths, average=average)
