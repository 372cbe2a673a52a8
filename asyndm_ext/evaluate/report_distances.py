"""The report's section on FID and KID, and their table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from asyndm_ext.evaluate import paper, words
from asyndm_ext.evaluate.distances import GROUPS, Distance
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.sets import Row

FILE = "distances.csv"
_FID = Column("fid", "FID", "", rises=False)
_COLUMNS = (_FID, Column("kid", "KID x 1000", "", rises=False, digits=3))


def section(rows: Sequence[Row], reference: Path, table: str | None = None) -> str:
    """The report's: FID and KID of each method, and what is between it and plain."""
    if not rows:
        return ""
    columns = [column for column in _COLUMNS if column.name in rows[0].values]
    printed = paper.DISTANCES if table == paper.FID_TABLE else {}
    heads = [*(["FID: paper"] if printed else []), "pictures"]
    for column in columns:
        heads += [column.title, "against plain"]
    lines = []
    for row in rows:
        cells = [f"{printed[row.method.label]:.2f}" if row.method.label in printed else ""] if printed else []
        cells.append(str(row.pictures))
        for column in columns:
            value, apart = row.values[column.name], row.apart.get(column.name)
            cells.append(_told(value, column, signed=False))
            cells.append("" if apart is None else _told(apart, column, signed=True))
        css = ' class="plain"' if row.method.kind == "plain" else ""
        told = "".join(f'<td data-of="{escape(h)}">{cell}</td>' for h, cell in zip(heads, cells, strict=True))
        lines.append(f"<tr{css}><th>{escape(row.method.label)}</th>{told}</tr>")
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    kind = "the pictures in" if reference.is_dir() else "the statistics in"
    unbiased = (
        " KID does not depend on how many pictures there are."
        if len(columns) > 1
        else " (Statistics alone have no KID; a folder of photographs as the reference has.)"
    )
    return (
        f"<h2>As pictures: FID{' and KID' if len(columns) > 1 else ''}</h2><p>How far all of a method's pictures"
        f" together are from {kind} {escape(reference.name)}; less is better. FID becomes smaller the more pictures"
        " there are and depends on the prompts, so only methods of one run can be held against each other, and not"
        f" with numbers from elsewhere.{unbiased} Intervals of 95 % by a jackknife over {GROUPS} groups of pictures,"
        f" the reference taken as it is; none below {GROUPS} pictures. Neither says whether a picture is what its"
        " prompt asks for.</p>"
        f'<div class="wide"><table class="numbers"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def as_csv(rows: Sequence[Row]) -> str:
    """A line for every method and distance."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["method", "distance", "pictures", "value", "low", "high"]
    writer.writerow([*heads, "pairs", "difference", "difference low", "difference high"])
    for row in rows:
        for column in (column for column in _COLUMNS if column.name in row.values):
            value, apart = row.values[column.name], row.apart.get(column.name)
            numbers = [value.value, *value.interval]
            more = [apart.value, *apart.interval] if apart is not None else [math.nan] * 3
            told = [_number(x) for x in numbers], [_number(x) for x in more]
            writer.writerow([row.method.label, column.title, row.pictures, *told[0], row.pairs or "", *told[1]])
    return text.getvalue()


def _told(distance: Distance, column: Column, signed: bool) -> str:
    """With its interval, if there is one."""

    def number(value: float) -> str:
        return words.signed(value, column) if signed else words.value(value, column)

    low, high = distance.interval
    if column is _FID and not signed:
        low = max(low, 0.0)  # there is no less
    interval = "" if math.isnan(low) else f"<small>[{number(low)} to {number(high)}]</small>"
    return number(distance.value) + interval


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"
