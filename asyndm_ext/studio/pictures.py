"""The three pictures as HTML, side by side and one over the other. Everything that people have typed is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from asyndm_ext.embedded.filmstrip import TITLES, explanation
from asyndm_ext.embedded.job import VARIANTS, Job, Variant
from asyndm_ext.studio.engine import Outcome, Progress
from asyndm_ext.ui import slider

_BEFORE: dict[Variant, str] = {
    "plain": "Every pixel on the ordinary schedule",
    "concave": "Every pixel slow, on the concave schedule",
    "asyndm": "Only the objects' pixels slow, the rest on time",
}
"""What will be there."""
_MARKS = {True: " ✗", False: " ✓"}
"""Of a picture with faults, and of one without."""


def blank() -> str:
    """Before the first run."""
    return gallery({name: figure(TITLES[name], _empty((1, 1), _BEFORE[name])) for name in VARIANTS}) + _compare({})


def previews(job: Job, progress: Progress) -> str:
    """While it runs: what is finished, and what the model expects."""
    size = (job.width, job.height)
    figures = {}
    for variant in VARIANTS:
        picture = progress.pictures.get(variant)
        shown = _empty(size, "") if picture is None else image(picture, TITLES[variant])
        figures[variant] = figure(TITLES[variant], shown, explanation(job, variant))
    return gallery(figures) + _compare(progress.pictures)


def results(outcome: Outcome) -> str:
    """The pictures, each with its parameters in the file, as a WebUI writes them."""
    job, figures = outcome.job, {}
    for variant in VARIANTS:
        picture = outcome.pictures.get(variant)
        if picture is None:
            figures[variant] = figure(TITLES[variant], _empty((job.width, job.height), "AsynDM is off"))
            continue
        source = data_url(picture, job.infotext(variant))
        title = TITLES[variant]
        name = f'download="{variant}-{job.seed}.png" aria-label="Save {escape(title)}"'
        shown = zoomed(image(picture, f"{title}: {job.prompt}", source), title)
        save = f'<a href="{source}" {name}>Save</a>'
        figures[variant] = figure(title, shown, explanation(job, variant), save, verdict(outcome.faults.get(variant)))
    return gallery(figures) + _compare(outcome.pictures, outcome.faults)


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


def verdict(faults: Sequence[str] | None) -> str:
    """Whether a picture shows what the prompt says, as the judge sees it; nothing where it has not been judged."""
    if faults is None:
        return ""
    says = f"Wrong: {', '.join(faults)}." if faults else "Right: it shows what the prompt says."
    kind, mark = "fault" if faults else "right", _MARKS[bool(faults)].strip()
    return f'<span class="studio-verdict studio-{kind}">{mark} {escape(says)}</span> '


# --- parts of it ----------------------------------------------------------------------------------------------------


def gallery(figures: Mapping[Variant, str]) -> str:
    """Side by side."""
    return f'<div class="studio-gallery studio-side-by-side">{"".join(figures.values())}</div>'


def figure(title: str, shown: str, text: str = "", side: str = "", first: str = "") -> str:
    """A picture with a title and words below; ``side`` stands beside the title, ``first`` before the words."""
    return (
        f'<figure class="studio-figure"><div class="studio-title"><b>{escape(title)}</b>{side}</div>{shown}'
        f"<figcaption>{first}{escape(text)}</figcaption></figure>"
    )


def image(picture: Image.Image, alt: str, source: str = "") -> str:
    """A picture that grows with its place; ``source`` if its address has been made already."""
    width, height = picture.size
    return f'<img src="{source or data_url(picture)}" alt="{escape(alt)}" style="aspect-ratio: {width} / {height}">'


def zoomed(shown: str, title: str) -> str:
    """A picture that is enlarged by a press (assets/viewer.js)."""
    return f'<button type="button" class="studio-zoom" aria-label="Enlarge: {escape(title)}">{shown}</button>'


def _empty(size: tuple[int, int], text: str) -> str:
    return f'<div class="studio-empty" style="aspect-ratio: {size[0]} / {size[1]}">{escape(text)}</div>'


def _compare(pictures: Mapping[Variant, Image.Image], faults: Mapping[Variant, Sequence[str]] = {}) -> str:
    """The plain picture over that of AsynDM. Where they have been judged, ``faults`` are as in Outcome."""

    def tag(variant: Variant) -> str:
        return TITLES[variant] + (_MARKS[bool(faults[variant])] if variant in faults else "")

    before, after = pictures.get("plain"), pictures.get("asyndm")
    if before is None or after is None:
        says = "There is something to compare as soon as both pictures are there: the plain one, and that of AsynDM."
        return slider.box(_empty((1, 1), says))
    titles, tags = (TITLES["plain"], TITLES["asyndm"]), (tag("plain"), tag("asyndm"))
    return slider.html(data_url(before), data_url(after), titles, tags, after.size)
