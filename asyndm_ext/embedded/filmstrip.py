"""AsynDM's steps as a filmstrip, and what each clock does in a sentence."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from asyndm_ext.embedded.batch import strengths_of
from asyndm_ext.embedded.job import Job, Variant
from asyndm_ext.embedded.sampling import Result
from asyndm_ext.picture.drawing import NOISIEST, clock_colours, enlarged, mask_picture, to_picture
from asyndm_ext.picture.strip import Layout, Row, draw, legend_of_clock, legend_of_slow

# --- clocks ---------------------------------------------------------------------------------------------------------

TITLES: dict[Variant, str] = {"plain": "Plain", "concave": "Plain, concave", "asyndm": "AsynDM"}


def explanation(job: Job, variant: Variant) -> str:
    """What this clock does, in a sentence."""
    if variant != "plain" and job.settings.strength == 0:
        return "Strength 0: nothing is held back."
    if variant == "plain":
        return "Every pixel loses its noise on the ordinary schedule."
    if variant == "concave" or job.settings.region == "everything":
        return "Every pixel keeps its noise for longer, whatever it shows."
    return f"Only the pixels {_where(job)} keep their noise for longer; the rest is on time.{_turns(job)}"


def _where(job: Job) -> str:
    """Which pixels are slow, after "the pixels"."""
    objects = "of " + " and ".join(f'"{spec.name}"' for spec in job.settings.objects)
    if job.settings.uses_guidance:
        objects = "where the prompt makes a difference"
    inverted = "outside" if job.settings.mask_invert else "under"
    return {
        "objects": objects,
        "mask": f"{inverted} the mask",
        "objects or mask": f"{objects} and those {inverted} the mask",
        "objects and mask": f"{objects} that are {inverted} the mask",
    }[job.settings.region]


def _turns(job: Job) -> str:
    """Which object is drawn first, as a sentence; empty: none is."""
    until = strengths_of([job]).until if job.settings.uses_words else None
    if until is None:
        return ""
    named = sorted(zip(until.tolist(), job.settings.objects, strict=True), key=lambda pair: pair[0])
    return " In turn: " + ", ".join(f'"{spec.name}" until {end:.0%} of the steps' for end, spec in named) + "."


# --- filmstrip ------------------------------------------------------------------------------------------------------


_FOUND = ("Where the picture pays attention to the objects' words.", "Where the prompt makes the most difference.")


def layout(job: Job, result: Result) -> Layout:
    """Where the filmstrip's cells are: rows 0 to 2 are prediction, slow pixels and clock."""
    return Layout.of(job.prompt, result.strength.shape, rows=3)


def filmstrip(job: Job, result: Result, decode: Callable[[Tensor], Tensor]) -> Image.Image:
    """Prediction, slow pixels and clock over the steps."""
    where = layout(job, result)
    settings = job.settings
    predictions = {step: to_picture(decode(result.predictions[step : step + 1])[0]) for step in where.steps}

    def noise(step: int) -> str:
        low, high = result.timestep_range[step]
        return f"{low:.0f}" + (f" to {high:.0f}" if high > low else "")

    rows = (
        Row(
            "Prediction",
            "What the model expects the finished picture to be, at this step.",
            lambda step: predictions[step].resize(where.cell, Image.Resampling.BICUBIC),
        ),
        Row(
            "Slow pixels",
            f"{_FOUND[settings.uses_guidance]} These pixels are held back.",
            lambda step: mask_picture(predictions[step], result.strength[step], settings.strength, where.factor),
            lambda step: f"{result.slow_fraction[step]:.0%} of pixels",
            legend_of_slow,
        ),
        Row(
            "Clock",
            "How much noise each pixel still has. The objects have more of it than their surroundings.",
            lambda step: enlarged(clock_colours(result.timestep[step]), where.factor),
            noise,
            legend_of_clock(f"{NOISIEST} noise", f"{NOISIEST // 2 + 1}", "0 clean"),
        ),
    )
    details = f"AsynDM at strength {settings.strength:g}, {settings.curve}: {job.solver}, seed {job.seed}"
    return draw(where, job.prompt, details, rows)
