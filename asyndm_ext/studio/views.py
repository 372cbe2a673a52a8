"""What is seen: pictures, steps and messages as HTML. Everything that people have typed is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from asyndm_ext.drawing import CLOCK_COLOURS, NOISIEST, clock_colours, enlarged, mask_picture
from asyndm_ext.embedded.filmstrip import TITLES, explanation
from asyndm_ext.embedded.sampling import VARIANTS, Job, Result, Variant
from asyndm_ext.studio.engine import Outcome, Progress

_VIEW = 384  # about the side of a picture, pixels
_CHART = (600, 110)  # the chart's own units, width and height


# --- messages -------------------------------------------------------------------------------------------------------


def idle() -> str:
    return _line("Write a prompt and press Run.")


def waiting() -> str:
    return _line("Waiting for its turn…")


def interrupted() -> str:
    return _line("Interrupted: nothing was drawn.")


def wrong(message: str) -> str:
    """An error, for people."""
    text = message.removeprefix("AsynDM: ")
    return f'<div class="studio-status studio-wrong" role="alert">{escape(text[:1].upper() + text[1:])}</div>'


def working(progress: Progress) -> str:
    """The progress bar."""
    share = f"step {progress.step} of {progress.total}"
    return (
        f'<div class="studio-status" role="status"><span>{TITLES[progress.variant]}: {share}</span>'
        f'<progress value="{progress.step}" max="{progress.total}" aria-label="{share}"></progress></div>'
    )


def finished(outcome: Outcome) -> str:
    """What was done, in a line; and what there is to know about it."""
    seconds = sum(result.seconds_per_step * len(result.strength) for result in outcome.results.values())
    says = [f"{len(outcome.results)} picture{'s' * (len(outcome.results) > 1)} in {seconds:.1f} s"]
    says.append(f"seed {outcome.job.seed}")
    ours = outcome.results.get("asyndm")
    if ours is None:
        says.append("AsynDM is off: open its panel to switch it on")
    else:
        if outcome.job.settings.uses_objects:
            says.append("objects: " + ", ".join(map(str, outcome.job.settings.objects)))
        says.append(f"{sum(ours.slow_fraction) / len(ours.slow_fraction):.0%} of the picture slow on average")
    note = f'<div class="studio-note">Note: {escape(ours.note)}.</div>' if ours and ours.note else ""
    return _line("; ".join(says)) + note


def _line(text: str) -> str:
    return f'<div class="studio-status" role="status"><span>{escape(text)}</span></div>'


# --- the three pictures ---------------------------------------------------------------------------------------------


def blank() -> str:
    """Before the first run."""
    return _gallery({variant: _figure(TITLES[variant], _empty((1, 1), "")) for variant in VARIANTS})


def previews(job: Job, progress: Progress) -> str:
    """While it runs: what is finished, and what the model expects."""
    size = (job.width, job.height)
    figures = {}
    for variant in VARIANTS:
        picture = progress.pictures.get(variant)
        shown = _empty(size, "") if picture is None else _image(picture, TITLES[variant])
        figures[variant] = _figure(TITLES[variant], shown, explanation(job, variant))
    return _gallery(figures)


def pictures(outcome: Outcome) -> str:
    """The results, each with its parameters in the file, as a WebUI writes them."""
    job, figures = outcome.job, {}
    for variant in VARIANTS:
        picture = outcome.pictures.get(variant)
        if picture is None:
            figures[variant] = _figure(TITLES[variant], _empty((job.width, job.height), "AsynDM is off"))
            continue
        source = data_url(picture, job.infotext(variant))
        save = f'<a href="{source}" download="{variant}-{job.seed}.png">Save</a>'
        shown = _image(picture, f"{TITLES[variant]}: {job.prompt}", source)
        figures[variant] = _figure(TITLES[variant], shown, explanation(job, variant), save)
    return _gallery(figures)


def parameters(outcome: Outcome) -> str:
    """The infotext, folded."""
    text = outcome.job.infotext("asyndm" if "asyndm" in outcome.results else "plain")
    return f"<details class='studio-parameters'><summary>Parameters</summary><pre>{escape(text)}</pre></details>"


def data_url(picture: Image.Image, infotext: str = "") -> str:
    """A PNG, with an infotext in it if there is one."""
    file, text = io.BytesIO(), PngInfo()
    if infotext:
        text.add_text("parameters", infotext)
    picture.save(file, "PNG", pnginfo=text)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _gallery(figures: Mapping[Variant, str]) -> str:
    return f'<div class="studio-gallery">{"".join(figures.values())}</div>'


def _figure(title: str, shown: str, text: str = "", side: str = "") -> str:
    return (
        f'<figure class="studio-figure"><div class="studio-title"><b>{escape(title)}</b>{side}</div>{shown}'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _image(picture: Image.Image, alt: str, source: str = "") -> str:
    width, height = picture.size
    return f'<img src="{source or data_url(picture)}" alt="{escape(alt)}" style="aspect-ratio: {width} / {height}">'


def _empty(size: tuple[int, int], text: str) -> str:
    return f'<div class="studio-empty" style="aspect-ratio: {size[0]} / {size[1]}">{escape(text)}</div>'


# --- the steps ------------------------------------------------------------------------------------------------------


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
    figures = (
        _figure("Prediction", _image(prediction, "prediction"), "What the model expects the finished picture to be."),
        _figure(
            "Slow pixels",
            _image(slow, "slow pixels"),
            f"{result.slow_fraction[number]:.0%} of the pixels are held back: the deeper the orange, the further.",
        ),
        _figure("Clock", _image(clock, "clock"), f"Noise that each pixel still has: {noise}.", _scale()),
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
