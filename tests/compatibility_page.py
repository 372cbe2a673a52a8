"""The tables of docs/COMPATIBILITY.md, made from the files in docs/compatibility, one for each WebUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, PAGE = DOCS / "compatibility", DOCS / "COMPATIBILITY.md"
ORDER = ("a1111", "forge", "neo", "classic", "reforge")
"""Of the WebUIs on the page; they are the names of the files, too."""
BEGIN, END = "<!-- made by tests/compatibility.py -->", "<!-- until here -->"
GREY_LEVELS = 2
"""By which a picture at strength 0 may differ from the plain one."""
KINDS = {
    "tiny-sd1": "SD 1.x",
    "tiny-sd2": "SD 2.x",
    "tiny-sd2v": "SD 2.x, v",
    "tiny-sdxl": "SDXL",
    "tiny-sd3": "SD3",
    "tiny-flux": "Flux",
    "tiny-chroma": "Chroma",
}
"""What the tiny models imitate."""

Results = list[dict[str, Any]]
"""One entry per WebUI: ``host``, and under ``models`` a run with its ``samplers``."""


def load() -> Results:
    """What has been measured so far."""
    return [one for kind in ORDER if (one := load_one(kind))]


def load_one(kind: str) -> dict[str, Any]:
    """What has been measured of one WebUI; empty where nothing has."""
    file = RESULTS / f"{kind}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def save_one(kind: str, result: dict[str, Any]) -> None:
    """Keep what has been measured of one WebUI."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"{kind}.json").write_text(text, encoding="utf-8")


def write(results: Results) -> None:
    """Put the tables into the page."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def with_tables(page: str, results: Results) -> str:
    """The page with these tables in the place of its older ones."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables(results)}\n{END}{after}"


def tables(results: Results) -> str:
    return "\n".join(_table(one["host"], one["models"]) for one in results)


def _table(host: dict[str, str], models: dict[str, Any]) -> str:
    """One WebUI: a row for each sampler, a column for each model, and below it what the numbers in brackets mean."""
    names = [model for model in KINDS if model in models]
    notes: list[str] = []
    lines = [
        f"### {host['name']} {host['version']}",
        "",
        f"gradio {host['gradio']}, torch {host['torch']}, Python {host['python']}.",
        "",
        f"| sampler | {' | '.join(KINDS[name] for name in names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for sampler in dict.fromkeys(sampler for name in names for sampler in models[name]["samplers"]):
        cells = [_cell(models[name]["samplers"].get(sampler), notes) for name in names]
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    lines.append("")
    lines += [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    lines += [""] if notes else []
    lines += [f"- {KINDS[name]}: {_run(models[name])}" for name in names]
    return "\n".join(lines) + "\n"


def _run(run: dict[str, Any]) -> str:
    return (
        f"{run['date']}, AsynDM {run['asyndm']}, {run['size']}, {run['steps']} steps, schedule type {run['schedule']}; "
        f"{sum(is_right(cell) for cell in run['samplers'].values())} of {len(run['samplers'])} samplers"
    )


def is_right(cell: dict[str, Any]) -> bool:
    """Whether AsynDM changed the picture, and strength 0 did not."""
    return "zero" in cell and cell["on"] > GREY_LEVELS and cell["zero"] <= GREY_LEVELS


def _cell(cell: dict[str, Any] | None, notes: list[str]) -> str:
    if cell is None:
        return ""
    if "zero" in cell:
        figures = f"{cell['on']} / {cell['zero']}"
        return figures if is_right(cell) else f"**{figures}**"
    said = {
        "not_applied": "Goes on without: {}.",
        "stops": "Stops: {}",
        "host": "The WebUI {}.",
        "wrong": "**Wrong**: {}",
    }
    kind = next(kind for kind in said if kind in cell)
    note = said[kind].format(str(cell[kind]).rstrip("."))
    if note not in notes:
        notes.append(note)
    return f"({notes.index(note) + 1})"
