"""The AsynDM paper's tables as runs: its conditions as defaults, its prompt sets checked, its numbers beside ours.

The numbers (``paper.csv``) are those of arXiv 2510.04504, by the labels that methods have here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from asyndm_ext.evaluate import words
from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.summary import EVERYTHING, Summary

SET = 40
"""Prompts in each of the authors' sets; with 32 seeds these are the paper's 1280 pictures."""
SETS = ("animal", "drawbench", "geneval", "mscoco")
WHERE = "the files of github.com/hu-zijing/AsynDM, NAME.json with NAME_item.json beside it"
_CURVES = ["quadratic", "piecewise linear", "exponential"]
_ALL = ["plain", "concave", "zigzag", "seg", "s-cfg", "cfg++", "asyndm"]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        said: what it is of, with the checkpoint.
        sets: the prompt sets, as their files are called; empty: the prompt is the table's own.
        options: the command's, by name; they are defaults, and what is given beside them counts.
    """

    said: str
    sets: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """All options that it sets."""
        shared = {"seeds": 32, "steps": [50], "guidance": [5.0], "solver": ["DDIM"], "eta": 1.0, "size": 512}
        return {**shared, "file_strengths": bool(self.sets), **self.options}


_LARGE = {"size": 1024}
TABLES: dict[str, Table] = {
    "table1": Table("SD 2.1-512-base, four prompt sets", SETS, {"methods": _ALL}),
    "table2": Table(
        "SD 2.1-512-base, curves and fixed masks",
        ("animal",),
        {"methods": ["plain", "concave", "asyndm", "fixed"], "curve": _CURVES},
    ),
    "table4": Table("SDXL-base-1.0", ("animal",), {"methods": _ALL, **_LARGE}),
    "table5": Table(
        "SD3.5-medium",
        ("animal",),
        {"methods": ["plain", "concave", "seg", "s-cfg", "asyndm"], "solver": ["Euler"], "eta": None, **_LARGE},
    ),
    "table6": Table(
        "SD 2.1-512-base, numbers of steps",
        ("animal",),
        {"methods": ["plain", "asyndm"], "steps": [50, 5, 10, 20, 30, 40, 60]},
    ),
    "fid30k": Table(
        "SD 2.1-512-base, FID of all four prompt sets", SETS, {"methods": ["plain", "concave", "asyndm"], "seeds": 100}
    ),
    "figure8": Table(
        "SD 2.1-512-base, strengths for one prompt (no numbers are printed)",
        (),
        {"methods": ["plain", "asyndm"], "strength": [1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]},
    ),
}
FID_TABLE = "fid30k"
DISTANCES = {"plain": 48.63, "concave": 49.29, "asyndm": 49.38}
"""FID, from 16 000 pictures each and the statistics of 30 000 photographs of MSCOCO."""
FIGURE_PROMPT = Prompt("a shark riding a bike", "figure8")


def check(name: str, prompts: Sequence[Prompt], limited: bool) -> None:
    """Raises ValueError for prompts that are not the table's.

    Args:
        name: of :data:`TABLES`.
        prompts: what was given.
        limited: fewer were asked for.
    """
    wanted = TABLES[name].sets
    counts = {kind: sum(prompt.kind == kind for prompt in prompts) for kind in wanted}
    missing = [kind for kind in wanted if not counts[kind]]
    if missing:
        raise ValueError(
            f"{name} is of the prompt sets {', '.join(wanted)}, and {', '.join(missing)} is not there; give"
            f" {WHERE}, with --prompt-file each"
        )
    others = {prompt.kind for prompt in prompts} - set(wanted)
    if others:
        raise ValueError(f"{name} has no prompt set {', '.join(sorted(others))}")
    wrong = [f"{kind} has {number}" for kind, number in counts.items() if number != SET]
    if wrong and not limited:
        raise ValueError(f"a prompt set of the paper has {SET} prompts, but {', '.join(wrong)}")


@cache
def numbers(name: str) -> dict[tuple[str, str], dict[str, float]]:
    """The table's: prompt set and method's label to column to number."""
    with (Path(__file__).parent / "paper.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == name]
    return {
        (row["prompts"], row["method"]): {c: float(row[c]) for c in row if c not in ("table", "prompts", "method")}
        for row in rows
    }


# --- in the report --------------------------------------------------------------------------------------------------


def section(name: str, summary: Summary) -> str:
    """The paper's numbers beside ours; what there is no judge or no method for is said."""
    table, found = TABLES[name], numbers(name)
    columns = [c for c in summary.columns if any(c.name in row for row in found.values())]
    total = len(summary.plan.pairs) * len(summary.plan.methods)
    left = sum(
        pair.key(method) not in summary.results for pair in summary.plan.pairs for method in summary.plan.methods
    )
    told = f"{left} of {total} pictures are still to come." if left else f"All {total} pictures are there."
    parts = [f"<h2>{escape(_title(name))} of the paper</h2><p>{escape(table.said)}. {told}"]
    drawn = {method.label for method in summary.plan.methods}
    lacking = list(dict.fromkeys(label for _, label in found if label not in drawn))
    if lacking:
        parts.append(f" Not drawn here: {escape(', '.join(lacking))}.")
    if found and not columns:
        parts.append(
            " None of the paper's judges was asked: <code>--metric</code> clipscore, imagereward, vlm, bertscore."
        )
    parts.append("</p>")
    if columns and summary.pairs:
        parts += [_of_set(kind, summary, columns, found) for kind in table.sets]
    return "".join(parts)


def _title(name: str) -> str:
    return (
        "FID-30K"
        if name == FID_TABLE
        else f"{name.rstrip('0123456789').capitalize()} {name.lstrip('abcdefghijklmnopqrstuvwxyz')}"
    )


def _of_set(kind: str, summary: Summary, columns: Sequence[Column], found: Mapping[tuple[str, str], Any]) -> str:
    within = kind if kind in summary.kinds else EVERYTHING
    head = "".join(f"<th>{escape(c.title)}: paper</th><th>ours</th><th>ours - paper</th>" for c in columns)
    rows = []
    for method in summary.plan.methods:
        printed = found.get((kind, method.label))
        if printed is not None:
            cells = "".join(_cells(summary, method, column, within, printed[column.name]) for column in columns)
            rows.append(f"<tr><th>{escape(method.label)}</th>{cells}</tr>")
    if not rows:
        return ""
    return (
        f'<div class="wide"><table class="numbers"><thead><tr><th>{escape(kind)}</th>{head}</tr></thead>'
        f"{''.join(rows)}</table></div>"
    )


def _cells(summary: Summary, method: Method, column: Column, kind: str, printed: float) -> str:
    mean = summary.mean(method, column, kind)
    title = escape(column.title)
    paper = f'<td data-of="{title}: paper">{words.value(printed, column)}</td>'
    if math.isnan(mean):
        return f'{paper}<td data-of="ours" class="none">-</td><td data-of="ours - paper" class="none">-</td>'
    low, high = summary.interval(method, column, kind)
    apart = words.signed(mean - printed, column)
    interval = ""
    if not math.isnan(low):
        interval = f"<small>[{words.signed(low - printed, column)} to {words.signed(high - printed, column)}]</small>"
    return (
        f'{paper}<td data-of="ours">{words.value(mean, column)}</td><td data-of="ours - paper">{apart}{interval}</td>'
    )
