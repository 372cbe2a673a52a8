"""The runs of a window: what is shown, and the last ones to go back to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from PIL import Image

from asyndm_ext.embedded.sampling import Result
from asyndm_ext.studio.engine import Outcome
from asyndm_ext.studio.pictures import data_url

MOST_RUNS = 12
MOST_BYTES = 192 * 2**20
"""Of the steps of all runs that are kept: twelve large ones would fill a small machine."""
_THUMBNAIL = 96  # pixels


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        number: counted from 1 in this window.
        values: of all controls by their names, with the seed that was drawn.
    """

    number: int
    outcome: Outcome
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Desk:
    """What a window has, oldest run first.

    Attributes:
        shown: the run whose pictures are on the page.
        count: of all runs, also those that are not kept any more.
    """

    runs: tuple[Run, ...] = ()
    shown: Run | None = None
    count: int = 0

    def with_run(self, outcome: Outcome, values: Mapping[str, Any]) -> Desk:
        """This run is shown and kept, and so are as many of the last ones as there is room for."""
        run = Run(self.count + 1, _lean(outcome), {**values, "seed": outcome.job.seed})
        return Desk(tuple(_room_for(run, self.runs)), run, run.number)

    def showing(self, number: Any) -> Desk:
        """Shows a run that is kept.

        Raises:
            ValueError: it is not kept any more.
        """
        for run in self.runs:
            if run.number == number:
                return replace(self, shown=run)
        raise ValueError("this run is not kept any more: only the last ones are")


def _lean(outcome: Outcome) -> Outcome:
    """Without what nobody looks at any more: the steps of the plain pictures."""
    results = {
        name: result if name == "asyndm" else replace(result, predictions=result.predictions[-1:].clone())
        for name, result in outcome.results.items()
    }
    return replace(outcome, results=results)


def _room_for(newest: Run, runs: tuple[Run, ...]) -> Iterator[Run]:
    room, kept = MOST_BYTES - _bytes(newest), [newest]
    for run in reversed(runs[-(MOST_RUNS - 1) :]):
        room -= _bytes(run)
        if room < 0:
            break
        kept.append(run)
    yield from reversed(kept)


def _bytes(run: Run) -> int:
    def size(result: Result) -> int:
        tensors = (result.latent, result.predictions, result.strength, result.timestep)
        return sum(one.numel() * one.element_size() for one in tensors)

    return sum(map(size, run.outcome.results.values()))


def html(desk: Desk) -> str:
    """The thumbnails, newest first; a press on one is the page's own business (assets/desk.js)."""
    if not desk.runs:
        return ""
    thumbnails = (_thumbnail(run, run is desk.shown) for run in reversed(desk.runs))
    return f'<div class="studio-runs" role="group" aria-label="The last runs">{"".join(thumbnails)}</div>'


def _thumbnail(run: Run, is_shown: bool) -> str:
    outcome = run.outcome
    picture = outcome.pictures["asyndm" if "asyndm" in outcome.pictures else "plain"].copy()
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BICUBIC)
    label = f"Run {run.number}: {outcome.job.prompt}, seed {outcome.job.seed}"
    return (
        f'<button type="button" class="studio-thumbnail" data-run="{run.number}" title="{escape(label)}"'
        f' aria-label="{escape(label)}"{" aria-current=true" if is_shown else ""}>'
        f'<img src="{data_url(picture)}" alt=""><span>{run.number}</span></button>'
    )
