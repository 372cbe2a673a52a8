"""A run as one file: a page that needs nothing else, with the pictures, the settings and what was said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from typing import Any

from torch import Tensor

from asyndm_ext import __version__
from asyndm_ext.embedded.filmstrip import filmstrip
from asyndm_ext.settings import FIELDS
from asyndm_ext.studio import messages, pictures
from asyndm_ext.studio.assets import panel_text_of, text_of
from asyndm_ext.studio.pictures import data_url
from asyndm_ext.studio.runs import Run

_LABELS = {
    "prompt": "Prompt", "seed": "Seed", "steps": "Steps", "solver": "Solver", "scheduler": "Scheduler",
    "guidance": "Guidance", "width": "Width", "height": "Height", "enabled": "AsynDM",
    **{spec.name: spec.label for spec in FIELDS},
}  # fmt: skip


def written(run: Run, decode: Callable[[Tensor], Tensor]) -> tuple[str, str]:
    """The file's name and text.

    Args:
        run: of the studio.
        decode: latents ``(1,C,H,W)`` to pictures.
    """
    outcome = run.outcome
    parts = [
        f"<h1>{escape(outcome.job.prompt)}</h1><p>{escape(messages.summary(outcome))}</p>",
        messages.note(outcome.note) if outcome.note else "",
        pictures.results(outcome),
        _steps(run, decode),
        f"<h2>Settings</h2>{_table(run)}",
        *(
            f"<h2>Parameters of the picture “{name}”</h2><pre>{escape(outcome.job.infotext(name))}</pre>"
            for name in outcome.results
        ),
        f"<p>Drawn by the little model of AsynDM {__version__}. Each picture is a PNG with its parameters in it: save"
        " it from here.</p>",
    ]
    title = escape(f"{outcome.job.prompt}, seed {outcome.job.seed}")
    sheets = (panel_text_of("style.css"), text_of("viewer.css"), text_of("report.css"))
    styles = "".join(f"<style>{sheet}</style>" for sheet in sheets)
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{styles}</head>'
        f'<body><main>{"".join(parts)}</main><script type="application/json" id="run">{_data(run)}</script>'
        f"<script>{text_of('viewer.js')}</script></body></html>"
    )
    return f"asyndm-{outcome.job.seed}.html", page


def _steps(run: Run, decode: Callable[[Tensor], Tensor]) -> str:
    result = run.outcome.results.get("asyndm")
    if result is None:
        return ""
    strip = filmstrip(run.outcome.job, result, decode)
    source = data_url(strip, run.outcome.job.infotext("asyndm"))
    shown = pictures.zoomed(pictures.image(strip, "The steps of AsynDM", source), "The steps of AsynDM")
    return f'<h2>Steps</h2><figure class="studio-figure studio-strip">{shown}</figure>'


def _table(run: Run) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(_LABELS.get(name, name))}</th><td>{_cell(name, value)}</td></tr>"
        for name, value in run.values.items()
        if value not in (None, "")
    )
    return f"<table>{rows}</table>"


def _cell(name: str, value: Any) -> str:
    if name == "mask":
        return f'<img class="studio-mask" alt="the mask" src="data:image/png;base64,{escape(value)}">'
    if isinstance(value, bool):
        return "on" if value else "off"
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _data(run: Run) -> str:
    """For programs: what the page's controls were set to, and each picture's parameters."""
    outcome = run.outcome
    data = {
        "settings": dict(run.values),
        "parameters": {name: outcome.job.infotext(name) for name in outcome.results},
        "note": outcome.note,
        "version": __version__,
    }
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
