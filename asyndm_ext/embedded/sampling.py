"""One picture of the embedded model on one of three clocks, and everything worth showing about how it came about.

The three variants differ in nothing but the region of slow pixels: nowhere (the host's ordinary schedule), everywhere
(the paper's DM_concave), or where the attention finds the prompt's objects (AsynDM). They start from the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from asyndm_ext import __version__, mask_image
from asyndm_ext.embedded.batch import Variant, base_schedule, run_batch, strengths_of
from asyndm_ext.embedded.limits import GUIDANCE, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS, SCHEDULERS, SEEDS, SIDE_STEP
from asyndm_ext.noise import NoiseTable
from asyndm_ext.objects import ObjectSpec
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.ui.coverage import Coverage
from asyndm_ext.ui.overlap import Overlap
from asyndm_ext.world.tokens import Tokenizer
from asyndm_ext.world.words import COUNTED, read

if TYPE_CHECKING:
    from asyndm_ext.world.model import WorldModel  # diffusers takes seconds to import: not for a wrong argument

VARIANTS: tuple[Variant, ...] = get_args(Variant)
COUNTED_SOLVERS = tuple(name for name, solver in SOLVERS.items() if not solver.adaptive)
"""Those that take the steps they are given: the filmstrip and the progress bar count on it."""


# --- objects --------------------------------------------------------------------------------------------------------


def automatic_objects(prompt: str) -> list[str]:
    """The animal and the thing that a prompt names, in its own words and order: "shark", "mountain bike".

    Raises:
        ValueError: the prompt cannot be read.
    """
    words, reading = Tokenizer().words(prompt), read(prompt)
    spans = sorted(
        (span for part, span in reading.places.items() if part in ("animal", "thing")), key=lambda s: s.start
    )
    return [" ".join(words[span.start : span.stop]) for span in spans]


def object_columns(tokenizer: Tokenizer, prompt: str, objects: Sequence[ObjectSpec]) -> list[list[int]]:
    """The text columns of each object: the words of its phrase, at each place where the prompt has it.

    "polar bear" and "bear" get a column of "bear" each where the prompt has both; "bear" alone stands for all bears.

    Raises:
        ValueError: the prompt does not have a phrase, or a phrase is an article or a number alone.
    """
    words = tokenizer.words(prompt)
    places = [_places(words, tokenizer.words(spec.name), spec) for spec in objects]
    columns = []
    for own in places:
        longer = [taken for other in places for taken in other if len(taken) > len(own[0])]
        free = [place for place in own if not any(set(place) <= set(taken) for taken in longer)]
        # Word i stands in column i + 1.
        columns.append([i + 1 for place in free or own for i in place])
    return columns


def _places(words: Sequence[str], wanted: Sequence[str], spec: ObjectSpec) -> list[range]:
    """Where the wanted words stand one after the other, or the one place of these that the object names."""
    if all(word in COUNTED for word in wanted):
        raise ValueError(f"the object {spec.name!r} names nothing")
    spans = (range(i, i + len(wanted)) for i in range(len(words) - len(wanted) + 1))
    found = [span for span in spans if list(words[span.start : span.stop]) == list(wanted)]
    if spec.occurrence is not None:
        found = found[spec.occurrence - 1 : spec.occurrence]
    if not found:
        raise ValueError(f"the object {str(spec).split(':')[0]!r} is not in the prompt {' '.join(words)!r}")
    return found


# --- the job --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What to draw. Checks itself, so that a bad value is refused before anything is loaded or written.

    Attributes:
        settings: AsynDM's own. If enabled, a region of objects needs phrases of the prompt, at least one, and one
            with a mask needs a mask.
        scheduler: how the noise levels are spaced, one of :data:`SCHEDULERS`; timestep solvers know "uniform" only.
        guidance: CFG scale.
        width, height: of the picture, in pixels.

    Raises:
        ValueError: a value is out of range, or the model cannot read the prompt.
    """

    prompt: str
    seed: int
    settings: Settings
    steps: int = 20
    solver: str = "Euler"
    scheduler: str = "uniform"
    guidance: float = GUIDANCE
    width: int = 128
    height: int = 128

    def __post_init__(self) -> None:
        for name, value, known in (
            ("solver", self.solver, COUNTED_SOLVERS),
            ("scheduler", self.scheduler, SCHEDULERS),
        ):
            _require(value in known, f"unknown {name} {value!r}; choose one of: {', '.join(known)}")
        others = [name for name in COUNTED_SOLVERS if SOLVERS[name].space == "sigma"]
        _require(
            self.scheduler == "uniform" or not self.walks_timesteps,
            f"{self.solver} walks along whole timesteps, which only the scheduler 'uniform' gives;"
            f" {self.scheduler!r} goes with: {', '.join(others)}",
        )
        fewest = 2 if self.walks_timesteps else 1
        _require(
            fewest <= self.steps <= MAX_STEPS,
            f"steps must be between {fewest} and {MAX_STEPS} for {self.solver}, got {self.steps}",
        )
        guided = 0 <= self.guidance <= MAX_GUIDANCE
        _require(guided, f"guidance must lie between 0 and {MAX_GUIDANCE:g}, got {self.guidance:g}")
        _require(0 <= self.seed < SEEDS, f"seed must be between 0 and {SEEDS - 1}, got {self.seed}")
        for side in (self.width, self.height):
            _require(
                side % SIDE_STEP == 0 and SIDE_STEP <= side <= MAX_SIDE,
                f"width and height must be multiples of {SIDE_STEP} from {SIDE_STEP} to {MAX_SIDE},"
                f" got {self.width}x{self.height}",
            )
        Tokenizer().encode(self.prompt)
        read(self.prompt)
        if self.settings.enabled:
            self._check_region()

    def _check_region(self) -> None:
        if self.settings.uses_words:
            _require(
                bool(self.settings.objects), f"no object found in the prompt {self.prompt!r}; name one of its words"
            )
            object_columns(Tokenizer(), self.prompt, self.settings.objects)
        if self.settings.uses_mask:
            _require(bool(self.settings.mask), f"the region {self.settings.region!r} needs a mask, and there is none")
            self.slow_fraction((self.height // SIDE_STEP, self.width // SIDE_STEP))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def walks_timesteps(self) -> bool:
        """Whether the solver counts noise in timesteps; else it does in sigmas."""
        return SOLVERS[self.solver].space == "timestep"

    @property
    def columns(self) -> list[list[int]]:
        """Text columns per object."""
        return object_columns(Tokenizer(), self.prompt, self.settings.objects) if self.settings.uses_words else []

    @property
    def finds_a_fixed_mask(self) -> bool:
        """Whether the objects are looked for in a plain pass before AsynDM's own."""
        return self.settings.uses_objects and self.settings.mask_source == "fixed"

    def slow_fraction(self, size: tuple[int, int]) -> Tensor:
        """The settings' mask at a latent of this size ``(H, W)``: ``(1,1,H,W)``, fractions.

        Raises:
            ValueError: nothing is slow.
        """
        mask = mask_image.decode(self.settings.mask)
        return mask_image.slow_fraction(mask, size, self.settings.mask_invert)

    def infotext(self, variant: Variant = "asyndm") -> str:
        """The parameters as the WebUI writes them into a PNG: prompt, then ``key: value`` pairs."""
        pairs: dict[str, Any] = {
            "Steps": self.steps,
            "Sampler": self.solver,
            "Schedule type": self.scheduler[0].upper() + self.scheduler[1:],
            "CFG scale": f"{self.guidance:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model": "asyndm-little-world",
        }
        if variant == "concave":
            pairs |= replace(self.settings, region="everything", objects=()).infotext()
        elif variant == "asyndm":
            pairs |= self.settings.infotext()
        pairs["Version"] = f"asyndm {__version__}"
        return f"{self.prompt}\n" + ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _quoted(value: str) -> str:
    """The WebUI's rule: a value with a separator in it is written as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:\n"') else value


# --- the run --------------------------------------------------------------------------------------------------------


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
