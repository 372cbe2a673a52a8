"""One picture of the embedded model on one of three clocks, and everything worth showing about how it came about.

The three variants differ in nothing but the region of slow pixels: nowhere (the host's ordinary schedule), everywhere
(the paper's DM_concave), or where the attention finds the prompt's objects (AsynDM). They start from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.embedded.batch import base_schedule, run_batch, strengths_of
from asyndm_ext.embedded.job import Job, Variant
from asyndm_ext.run import StepRecord
from asyndm_ext.ui.coverage import Coverage
from asyndm_ext.ui.overlap import Overlap

if TYPE_CHECKING:
    from asyndm_ext.world.model import WorldModel  # diffusers takes seconds to import: not for a wrong argument


@dataclass(frozen=True)
class Result:
    """A finished picture and its history. Maps are ``(steps,H,W)`` at the latent's size, float64.

    Attributes:
        latent: ``(1,C,H,W)``.
        predictions: ``(steps,C,H,W)``: what the model took the finished latent for, in every step.
        strength: how slow each pixel was.
        timestep: each pixel's noise level at the start of the step, from 999 (noise) down to 0 (clean).
        seconds_per_step: wall time of the sampling loop, divided by the steps.
        note: what the user should know about it, or None.
    """

    latent: Tensor
    predictions: Tensor
    strength: Tensor
    timestep: Tensor
    seconds_per_step: float
    note: str | None = None

    @property
    def slow_fraction(self) -> list[float]:
        """Per step, the share of pixels that were held back."""
        return [float((step > 0).double().mean()) for step in self.strength]

    @property
    def timestep_range(self) -> list[tuple[float, float]]:
        """Per step, the lowest and the highest noise level of any pixel."""
        return [(float(step.min()), float(step.max())) for step in self.timestep]


def step_count(model: WorldModel, job: Job) -> int:
    """How many steps the solver takes; timestep solvers of the WebUI do not always take the number asked for."""
    return base_schedule(job, NoiseTable.from_alphas_cumprod(model.alphas_cumprod)).steps


def count_of_all(model: WorldModel, job: Job, variants: Sequence[Variant]) -> int:
    """How many steps these variants take together, the plain pass for a fixed mask included."""
    passes = len(variants) + (job.finds_a_fixed_mask and "asyndm" in variants)
    return passes * step_count(model, job)


def run_variant(
    model: WorldModel,
    job: Job,
    variant: Variant,
    on_step: Callable[[], object] = lambda: None,
    on_prediction: Callable[[Tensor], object] = lambda latent: None,
) -> Result:
    """Sample one picture.

    Args:
        model: the embedded model, or one of its kind.
        job: what to draw.
        variant: which pixels are slow.
        on_step: called after every step, also of the plain pass before a fixed mask; what it raises ends the run.
        on_prediction: called in every step with what the model takes the finished latent for, ``(1,C,H,W)``.
    """
    records: list[StepRecord] = []
    predictions: list[Tensor] = []
    coverage, overlap = Coverage(), Overlap()

    def look(record: StepRecord) -> None:
        on_step()

    def watch(record: StepRecord) -> None:
        records.append(record)
        coverage.watch(record)
        on_step()

    def report(step: dict[str, Any]) -> None:
        predictions.append(step["denoised"].cpu())
        on_prediction(predictions[-1])

    average = None
    if variant == "asyndm" and job.finds_a_fixed_mask:
        average = run_batch(model, [job], "plain", keep_average=True, watch=look).average
    batch = run_batch(model, [job], variant, average=average, callback=report, watch=watch, see=overlap.see)
    table = NoiseTable.from_alphas_cumprod(model.alphas_cumprod)
    note = None
    if variant == "asyndm":
        note = coverage.note(job.settings)
        if note is None and job.settings.uses_words:
            note = overlap.note([[*map(str, job.settings.objects)]], strengths_of([job]))
    level = torch.cat([record.level for record in records]).squeeze(1)
    return Result(
        latent=batch.latents,
        predictions=torch.cat(predictions),
        strength=torch.cat([record.strength for record in records]).squeeze(1),
        timestep=level if job.walks_timesteps else table.sigma_to_t(level),
        seconds_per_step=batch.seconds / len(records),
        note=note,
    )
