"""What the embedded model is to draw: a job that checks itself, its variants, and the words of its objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from asyndm_ext import __version__
from asyndm_ext.embedded.limits import GUIDANCE, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS, SCHEDULERS, SEEDS, SIDE_STEP
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region import mask_image
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.world.tokens import Tokenizer
from asyndm_ext.world.words import COUNTED, read

Variant = Literal["plain", "concave", "asyndm"]
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
