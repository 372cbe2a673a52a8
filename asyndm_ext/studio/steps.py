"""The steps of AsynDM as HTML."""

from __future__ import annotations

from PIL import Image

from asyndm_ext.embedded.job import Job
from asyndm_ext.embedded.sampling import Result
from asyndm_ext.picture.drawing import CLOCK_COLOURS, NOISIEST, clock_colours, enlarged, mask_picture
from asyndm_ext.studio.pictures import figure, image, zoomed
from asyndm_ext.ui.coverage import NOTHING_LAGGED

_VIEW = 384  # about the side of a picture, pixels
_CHART = (600, 110)  # the chart's own units, width and height


def most_apart(result: Result) -> int:
    """The step at which the pixels' noise levels are furthest apart, from 0."""
    apart = [high - low for low, high in result.timestep_range]
    return apart.index(max(apart))


def step(job: Job, result: Result, number: int, prediction: Image.Image) -> str:
    """One step of AsynDM: what the model expects, the slow pixels over it, and the clocks.

    Args:
        number: of the step, from 0.
        prediction: the picture that the model expects at this step.
    """
    strength, timestep = result.strength[number], result.timestep[number]
    factor = max(1, round(_VIEW / max(strength.shape)))
    low, high = result.timestep_range[number]
    noise = f"{low:.0f} of {NOISIEST}" if low == high else f"{low:.0f} to {high:.0f} of {NOISIEST}"
    slow = mask_picture(prediction, strength, job.settings.strongest, factor)
    clock = enlarged(clock_colours(timestep), factor)
    held = f"{result.slow_fraction[number]:.0%} of the pixels are held back: the deeper the orange, the further."
    if result.note == NOTHING_LAGGED:
        held = "These pixels would lag behind, with more steps." if strength.any() else "No pixel is slow."

    def shown(title: str, picture: Image.Image, says: str, side: str = "") -> str:
        return figure(title, zoomed(image(picture, f"{title} at step {number + 1}"), title), says, side)

    figures = (
        shown("Prediction", prediction, "What the model expects the finished picture to be."),
        shown("Slow pixels", slow, held),
        shown("Clock", clock, f"Noise that each pixel still has: {noise}.", _scale()),
    )
    return f'<div class="studio-gallery studio-step">{"".join(figures)}</div>{chart(result, number)}'


def _scale() -> str:
    colours = ", ".join(f"rgb{colour}" for colour in CLOCK_COLOURS)
    return f'<span class="studio-scale">clean<i style="background: linear-gradient(90deg, {colours})"></i>noise</span>'


def chart(result: Result, number: int) -> str:
    """Noise over the steps, of the least and the most noisy pixel, with a mark at a step."""
    width, height = _CHART
    # The last step leads to a clean picture; a schedule that is there before it needs no flat end.
    end = [] if result.timestep_range[-1][1] <= 1 else [0.0]
    last = max(len(result.timestep_range) + len(end) - 1, 1)

    def points(levels: list[float]) -> list[str]:
        return [
            f"{width * i / last:.1f},{height * (1 - level / NOISIEST):.1f}" for i, level in enumerate([*levels, *end])
        ]

    least = points([low for low, _ in result.timestep_range])
    most = points([high for _, high in result.timestep_range])
    at = f"{width * number / last:.1f}"
    return (
        f'<figure class="studio-chart"><svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
        ' aria-label="noise of the slowest and of the fastest pixel over the steps">'
        f'<polygon class="studio-gap" points="{" ".join([*least, *reversed(most)])}"/>'
        f'<polyline class="studio-on-time" points="{" ".join(least)}"/>'
        f'<polyline class="studio-slow" points="{" ".join(most)}"/>'
        f'<line class="studio-now" x1="{at}" x2="{at}" y1="0" y2="{height}"/></svg>'
        '<figcaption><span>Noise left over the steps:</span> <span class="asyndm-key asyndm-key-slow">the slowest '
        'pixel</span> <span class="asyndm-key asyndm-key-rest">the rest</span></figcaption></figure>'
    )
