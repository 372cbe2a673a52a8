"""The report's controls: against plain guidance at its best, and settings chosen on one half of the pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from asyndm_ext.evaluate import words
from asyndm_ext.evaluate.charts import Line, legend, lines
from asyndm_ext.evaluate.controls import (
    Matched,
    at_plains_best,
    best,
    equivalent,
    is_chosen_from_many,
    over_steps,
    rivals_of_plain,
    settings_of,
    steps_for,
)
from asyndm_ext.evaluate.methods import KINDS, Method
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.statistics import Difference
from asyndm_ext.evaluate.summary import Summary


def controls(summary: Summary, choosing: Summary, matched: Mapping[str, Matched]) -> str:
    """A row for each method: its strength, its cost, and what is left of its gain; nothing if there is no control.

    Args:
        summary: the numbers that are reported.
        choosing: those that the best plain guidance is chosen by; the same where no half was set aside for that.
        matched: by method's id, the plain pictures that were made for it.
    """
    plan, others = summary.plan, [method for method in summary.plan.methods if method.kind != "plain"]
    plains = [method for method in plan.methods if method.kind == "plain"]
    if not summary.columns or not summary.pairs or not others:
        return ""
    if len(plains) < 2 and not any(method.rival for method in others):
        return ""
    column = summary.columns[0]
    there = {method.id for method in plan.methods}
    swept = any(len(rivals_of_plain(method, plains)) > 1 for method in others)
    heads = ["guidance, as plain's", "model calls", "against plain"]
    heads += ["against the best plain guidance"] if swept else []
    heads += ["plain as strong", "plain as strong and dear"] if matched else []
    rows = []
    for method in others:
        scale = equivalent(method, summary.pairs, summary.results)
        cells = ["not known" if math.isnan(scale) else f"{scale:.3g}", str(steps_for(method))]
        cells.append(_told(summary.difference(method, column), column))
        if swept:
            found = at_plains_best(summary, choosing, method, column)
            cells.append(_told(found[1], column, f"guidance {found[0].host['guidance']:g}") if found else "")
        if matched:
            own = matched.get(method.id)
            for plain in (own.strong, own.dear) if own is not None else (None, None):
                known = plain is not None and plain.id in there
                cells.append(_against(summary, method, plain, column) if known and plain is not None else "")
        told = "".join(f'<td data-of="{escape(h)}">{cell}</td>' for h, cell in zip(heads, cells, strict=True))
        rows.append(f"<tr><th>{escape(method.label)}</th>{told}</tr>")
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    chosen = "on the other half of the pairs" if choosing is not summary else "on these same pairs, which favours plain"
    said = [
        f"<p>{escape(column.title)}. Judges like strong guidance, so a method that guides more than plain does has an"
        " easy gain. The first column is the scale at which plain guidance would add as much in all (the mean over"
        " steps and pictures; AsynDM's is the CFG scale).",
        f" The best plain guidance is chosen {chosen}." if swept else "",
        " Plain as strong: plain pictures at that scale; and dear: in as many steps as the method makes model calls."
        if matched
        else " <code>--matched</code> draws plain pictures at that scale, and with as many model calls.",
        "</p>",
    ]
    table = (
        f'<div class="wide"><table class="numbers"><thead><tr><th></th>{head}</tr></thead>{"".join(rows)}</table></div>'
    )
    return f"<h2>Against plain at its best</h2>{''.join(said)}{table}{_scales(summary)}"


def _told(d: Difference, column: Column, of: str = "") -> str:
    if not d.pairs:
        return ""
    small = f"<small>{escape(of)}</small>" if of else ""
    if words.is_same(d):
        return f"same{small}"
    interval = f"<small>[{words.interval(d, column)}]</small>" if d.known else ""
    return f"{words.signed(d.difference, column)}{interval}{small}"


def _against(summary: Summary, method: Method, plain: Method, column: Column) -> str:
    of = f"guidance {plain.host['guidance']:g}"
    if plain.host["steps"] != method.host["steps"]:
        of += f", steps {plain.host['steps']}"
    return _told(summary.difference(method, column, against=plain), column, of)


def _scales(summary: Summary) -> str:
    """The equivalent scale of each step, where it is not the CFG scale."""
    series, longest = [], 0
    for method in summary.plan.methods:
        found = (
            over_steps(method, summary.pairs, summary.results) if method.rival and method.label == method.kind else []
        )
        if found:
            longest = max(longest, len(found))
            series.append(Line(method.kind, [(i, scale, math.nan, math.nan) for i, scale in enumerate(found)]))
    if not series:
        return ""
    every = max(1, math.ceil(longest / 8))
    names = [str(i + 1) if i % every == 0 else "" for i in range(longest)]
    chart = lines("over the steps", names, series, "guidance scale at which plain would add as much")
    return f"<p>{legend([line.kind for line in series])}</p>{chart}"


def choice(summary: Summary, choosing: Summary, by: str | None) -> str:
    """Each method's best setting, chosen on one half and measured on the other; or that the best of many is no result.

    Args:
        summary: the numbers that are reported.
        choosing: the other half's.
        by: what the halves are made of; None: nothing was set aside.
    """
    methods = summary.plan.methods
    if not summary.columns or not summary.pairs or not is_chosen_from_many(methods):
        return ""
    if by is None:
        return (
            "<h2>Which setting is best?</h2><p>These tables do not say. Of many settings the best one looks better than"
            " it is, also where there is nothing to see: it was chosen for its luck, too. <code>--choose-on"
            " prompts</code> chooses on one half of the prompts and reports on the other.</p>"
        )
    column, items = summary.columns[0], []
    for kind in KINDS:
        several = settings_of(kind, methods)
        if len(several) < 2 or kind == "plain":
            continue
        chosen = best(choosing, several, column)
        if chosen is None:
            continue
        there, here = choosing.difference(chosen, column), summary.difference(chosen, column)
        if here.pairs:
            items.append(
                f"<li><b>{escape(chosen.label)}</b>, of {len(several)} settings: {_signed(there, column)} where it was"
                f" chosen ({words.counted(there.pairs, 'pair')}), and {words.difference(here, column)} on the other"
                f" half ({words.counted(here.pairs, 'pair')}). {words.verdict(here, column)}</li>"
            )
    if not items:
        return ""
    return (
        f"<h2>Which setting is best?</h2><p>Chosen on one half of the {escape(by)} by {escape(column.title)}, measured"
        f" on the other; all other numbers of this page are of the other half alone.</p><ul>{''.join(items)}</ul>"
    )


def _signed(d: Difference, column: Column) -> str:
    return words.signed(d.difference, column) if d.pairs else "nothing"


def file_strengths(methods: Sequence[Method]) -> str:
    """What is to be known of strengths that were chosen prompt by prompt."""
    if not any(method.takes_file_strengths for method in methods):
        return ""
    return (
        "<p>Strength <b>file</b> is each object's own, from the prompts' files. Where these were chosen"
        " prompt by prompt by looking at the pictures, the choice alone raises a score: taking the best of three"
        " settings for each prompt, by 32 pictures of it, gains 3.7 points where the settings make no difference at"
        " all. Rows with one strength for all prompts are free of that.</p>"
    )
