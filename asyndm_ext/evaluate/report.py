"""The report: one HTML file with everything in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from asyndm_ext.evaluate import paper, words
from asyndm_ext.evaluate.charts import Bar, Line, forest, legend, lines
from asyndm_ext.evaluate.controls import Matched
from asyndm_ext.evaluate.judge_check import JudgeErrors
from asyndm_ext.evaluate.methods import CONDITIONS, KINDS, Method
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.plan import Pair
from asyndm_ext.evaluate.report_controls import choice, controls, file_strengths
from asyndm_ext.evaluate.sheets import changed, drawn, thumbnail
from asyndm_ext.evaluate.statistics import FEWEST
from asyndm_ext.evaluate.store import MADE
from asyndm_ext.evaluate.summary import EVERYTHING, Summary
from asyndm_ext.evaluate.vote import Votes, section

_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def report(
    summary: Summary,
    folder: Path,
    made_with: Mapping[str, Any],
    judge: JudgeErrors | None = None,
    sheet: int = 12,
    sheet_seed: int = 0,
    choosing: Summary | None = None,
    halves: str | None = None,
    matched: Mapping[str, Matched] | None = None,
    votes: Sequence[Votes] = (),
    table: str | None = None,
    distances: str = "",
) -> str:
    """The page's text.

    Args:
        summary: the run's numbers.
        folder: of the run, with the pictures.
        made_with: what the pictures were made with.
        judge: the little world's judge's own errors, if it was the judge.
        sheet: pairs on a contact sheet.
        sheet_seed: of their choice.
        choosing: the numbers of the pairs on which settings are chosen, where these are others.
        halves: what the halves are made of, if so.
        matched: by method's id, the plain pictures that it is held against.
        votes: people's.
        table: the paper's, whose numbers stand beside.
        distances: the section on all pictures together.
    """
    parts = [
        "<h1>Does AsynDM help?</h1>",
        _answer(summary),
        _setup(summary, made_with),
        paper.section(table, summary) if table else "",
        _forest(summary),
        controls(summary, choosing or summary, matched or {}),
        choice(summary, choosing or summary, halves),
        section(votes, {method.id: method.label for method in summary.plan.methods}),
        _curves(summary),
        _numbers(summary),
        distances,
        _sheets(summary, folder, sheet, sheet_seed),
        _judge(judge),
        _method(summary),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>AsynDM, evaluated</title>\n'
        f"<style>\n{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


# --- the parts ------------------------------------------------------------------------------------------------------


def _central(summary: Summary) -> list[Method]:
    """One method of each kind, under the central settings and conditions."""
    return [method for method in summary.plan.methods if method.label == method.kind]


def _answer(summary: Summary) -> str:
    if not summary.pairs:
        return "<p>Nothing to compare yet.</p>"
    if not summary.columns:
        return "<p>No judge was asked, so there are pictures only; <code>--metric</code> adds one.</p>"
    column = summary.columns[0]
    others = [method for method in _central(summary) if method.kind != "plain"]
    if not others:
        return "<p>Only plain pictures were asked for, so there is nothing to compare them with.</p>"
    said = [_sentence(summary, method, column) for method in others if summary.difference(method, column).pairs]
    if not said:
        return "<p>No picture could be compared yet.</p>"
    return f'<ul class="answer">{"".join(f"<li>{text}</li>" for text in said)}</ul>'


def _sentence(summary: Summary, method: Method, column: Column) -> str:
    d = summary.difference(method, column)
    sentences = [
        f"<b>{escape(method.kind)}</b> ({escape(KINDS[method.kind])}): {escape(column.title)}"
        f" {words.value(d.mean, column)} against plain's {words.value(d.plain, column)} over"
        f" {words.counted(d.pairs, 'pair')}"
    ]
    if words.is_same(d):
        sentences[0] += f", <b>{words.difference(d, column)}</b>."
    else:
        number, _, interval = words.difference(d, column).partition(" ")
        sentences[0] += f", a difference of <b>{number}</b> {interval}."
        sentences.append(f"It made {words.changes(d, column)}.")
    sentences += [words.verdict(d, column), _against_concave(summary, method, column)]
    return " ".join(filter(None, sentences))


def _against_concave(summary: Summary, method: Method, column: Column) -> str:
    """The control that tells where slowness helps from slowness itself."""
    concave = next((other for other in _central(summary) if other.kind == "concave"), None)
    if concave is None or method.kind == "concave":
        return ""
    d = summary.difference(method, column, against=concave)
    return f"Against concave: {words.difference(d, column)}." if d.pairs else ""


def _setup(summary: Summary, made_with: Mapping[str, Any]) -> str:
    plan = summary.plan
    rows = [("Made with", ", ".join(f"{key} {value}" for key, value in made_with.items() if value not in (None, "")))]
    each = "" if len(plan.prompts) == 1 else " each"
    rows.append(("Prompts", f"{len(plan.prompts)}, with {words.counted(plan.seeds, 'seed')}{each}"))
    central = _central(summary)[0]
    rows.append(("Conditions", ", ".join(f"{name} {central.host[name]}" for name in CONDITIONS)))
    settings = next((m.settings for m in _central(summary) if m.kind == "asyndm"), ())
    if settings:
        rows.append(("AsynDM's settings", ", ".join(f"{name} {value}" for name, value in settings)))
    by = "the only method" if len(plan.methods) == 1 else f"all of {len(plan.methods)} methods"
    made = f"{len(summary.pairs)} of {words.counted(len(plan.pairs), 'pair')} by {by}"
    rows.append(("Done", made))
    for method in plan.methods:
        tally = summary.tally(method)
        troubles = [f"{n} {what}" for n, what in ((tally.not_applied, "not applied"), (tally.failed, "failed")) if n]
        if troubles:
            reasons = {r.status for p in plan.pairs if (r := summary.results.get(p.key(method))) and r.status != MADE}
            told = "; ".join(sorted(reasons)[:3])
            rows.append((method.label, f"{', '.join(troubles)}: left out of its numbers ({told})"))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f'<table class="setup">{cells}</table>'


def _forest(summary: Summary) -> str:
    if not summary.columns or not summary.pairs:
        return ""
    column = summary.columns[0]
    bars = []
    for kind in summary.kinds:
        chosen = summary.plan.methods if kind == EVERYTHING else _central(summary)
        chosen = [method for method in chosen if method.kind != "plain"]
        for method in chosen:
            d = summary.difference(method, column, kind)
            text = "same" if words.is_same(d) else words.signed(d.difference, column) if d.pairs else ""
            value, low, high = ((100 if column.share else 1) * v for v in (d.difference, d.low, d.high))
            bars.append(Bar(method.label, method.kind, value, low, high, text, _title(summary, kind)))
    unit = f"{column.title}: difference from plain{', percentage points' if column.share else ''}, 95 % intervals"
    chart = forest(bars, unit)
    return f"<h2>Against plain</h2>{chart}" if chart else ""


def _curves(summary: Summary) -> str:
    if not summary.columns or not summary.pairs:
        return ""
    column = summary.columns[0]
    scale = 100 if column.share else 1
    unit = f"{column.title}{', %' if column.share else ''}, 95 % intervals"
    central = {method.kind: method for method in _central(summary)}
    charts = []
    for name in _moved(summary):
        values: list[Any] = []
        for method in summary.plan.methods:
            value = dict(method.settings + method.conditions).get(name)
            if value is not None and value not in values and _differs_only_in(method, central[method.kind], name):
                values.append(value)
        if all(isinstance(value, (int, float)) for value in values):
            values.sort()
        series = []
        for kind in KINDS:
            points = []
            for method in summary.plan.methods:
                own = dict(method.settings + method.conditions)
                if method.kind == kind and name in own and _differs_only_in(method, central[kind], name):
                    mean = float(_mean(summary.scores(method, column)))
                    low, high = summary.interval(method, column)
                    points.append((values.index(own[name]), scale * mean, scale * low, scale * high))
            if len(points) > 1:
                series.append(Line(kind, sorted(points)))
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        charts.append(lines(name, texts, series, unit))
    if not any(charts):
        return ""
    kinds = list(dict.fromkeys(method.kind for method in summary.plan.methods))
    return f'<h2>Over the settings</h2><p>{legend(kinds)}</p><div class="charts">{"".join(charts)}</div>'


def _moved(summary: Summary) -> list[str]:
    """The settings and conditions with more than one value."""
    seen: dict[str, set[Any]] = {}
    for method in summary.plan.methods:
        for name, value in method.settings + method.conditions:
            seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if len(values) > 1]


def _differs_only_in(method: Method, other: Method, name: str) -> bool:
    mine, theirs = (dict(m.settings + m.conditions) for m in (method, other))
    return all(mine.get(key) == theirs.get(key) for key in {*mine, *theirs} if key != name)


def _mean(values: Any) -> float:
    known = values[~(values != values)]
    return known.mean() if len(known) else math.nan


def _numbers(summary: Summary) -> str:
    columns = _scored(summary, EVERYTHING)
    if not columns:
        return ""
    tables = "".join(_table(summary, kind) for kind in summary.kinds)
    told = _reading(summary, columns) + file_strengths(summary.plan.methods)
    return f"<h2>In numbers</h2>{told}{tables}"


def _scored(summary: Summary, kind: str) -> list[Column]:
    """The columns that have a score; some apply to few prompts."""
    methods = summary.plan.methods
    return [c for c in summary.columns if any(not math.isnan(_mean(summary.scores(m, c, kind))) for m in methods)]


def _compares(summary: Summary) -> bool:
    return any(method.kind != "plain" for method in summary.plan.methods)


def _reading(summary: Summary, columns: Sequence[Column]) -> str:
    items = "".join(
        f"<li><b>{escape(c.title)}</b>: {escape(c.help)}{'' if c.rises else ' Less is better.'}</li>" for c in columns
    )
    if not _compares(summary):
        return f"<p>Means.</p><ul>{items}</ul>"
    return (
        "<p>In each cell the mean, and below it the difference from plain's pictures of the same prompts and seeds"
        " under the same conditions, with its 95 % interval; coloured where it leaves out 0 and the test agrees. Of"
        f" intervals where there is nothing to see, 5 in 100 do so, too. Below {FEWEST} pairs there are the means"
        " alone. Same: no pair has another score. Better / worse: in how many pairs the first score is.</p>"
        f"<ul>{items}</ul>"
    )


def _table(summary: Summary, kind: str) -> str:
    columns, compares = _scored(summary, kind), _compares(summary)
    if not columns:
        return ""
    titles = [*(["better / worse"] if compares else []), *(column.title for column in columns)]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = []
    for method in summary.plan.methods:
        cells = "".join(_cell(summary, method, column, kind) for column in columns)
        if compares:
            cells = f'<td data-of="better / worse">{_changes(summary, method, kind)}</td>{cells}'
        css = "plain" if method.kind == "plain" else ""
        rows.append(f'<tr class="{css}"><th>{escape(method.label)}</th>{cells}</tr>')
    table = (
        f'<div class="wide"><table class="numbers"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    opened = " open" if kind == EVERYTHING else ""
    return f"<details{opened}><summary>{escape(_title(summary, kind))}</summary>{table}</details>"


def _changes(summary: Summary, method: Method, kind: str) -> str:
    if method.kind == "plain":
        return ""
    first = summary.columns[0]
    d = summary.difference(method, first, kind)
    chance = "" if words.is_same(d) or not d.known else f"<small>p {d.p:.2g}</small>"
    return f"{words.better(d, first)} / {words.worse(d, first)}{chance}"


def _title(summary: Summary, kind: str) -> str:
    count = words.counted(len(summary.of_kind(kind)), "pair")
    return f"{'All prompts' if kind == EVERYTHING else kind} ({count})"


def _cell(summary: Summary, method: Method, column: Column, kind: str) -> str:
    of = f'data-of="{escape(column.title)}"'
    mean = _mean(summary.scores(method, column, kind))
    if math.isnan(mean):
        return f'<td {of} class="none">-</td>'
    if method.kind == "plain":
        return f"<td {of}>{words.value(mean, column)}</td>"
    d = summary.difference(method, column, kind)
    css = "" if not d.clear else "good" if (d.low > 0) == column.rises else "bad"
    told = ""
    if words.is_same(d):
        told = "<small>same</small>"
    elif d.pairs and not d.known:
        told = f"<small>{words.signed(d.difference, column)}</small>"
    elif d.pairs:
        told = f"<small>{words.signed(d.difference, column)}</small><small>[{words.interval(d, column)}]</small>"
    return f'<td {of} class="{css}">{words.value(mean, column)}{told}</td>'


def _sheets(summary: Summary, folder: Path, number: int, seed: int) -> str:
    if number <= 0 or not any(summary.result(p, m).picture for p in summary.pairs for m in summary.plan.methods):
        return ""
    shown, column = _central(summary), summary.columns[0] if summary.columns else None
    sheets = [("At random, whatever the score", summary.pairs)]
    for method in shown:
        if column and method.kind != "plain":
            better, worse = changed(summary, method, column)
            sheets += [(f"Better with {method.label}", better), (f"Worse with {method.label}", worse)]
    parts = [
        f"<h2>Pictures</h2><p>Each sheet is drawn at random (seed {seed}) from all pairs of its kind, neither picked"
        " nor sorted. The pictures of a row come from the same noise.</p>"
    ]
    for title, pairs in sheets:
        chosen = drawn(pairs, number, seed)
        figures = "".join(_figure(summary, folder, pair, shown, column) for pair in chosen)
        if figures:
            count = f"{len(chosen)} of {words.counted(len(pairs), 'pair')}"
            parts.append(f'<h3>{escape(title)}: {count}</h3><div class="sheet">{figures}</div>')
    empty = [title[0].lower() + title[1:] for title, pairs in sheets if not pairs]
    if empty:
        parts.append(f"<p>No pair is {escape(', or '.join(empty))}.</p>")
    return "\n".join(parts)


def _figure(summary: Summary, folder: Path, pair: Pair, methods: Sequence[Method], column: Column | None) -> str:
    cells = []
    for method in methods:
        found = summary.result(pair, method)
        source = thumbnail(folder / found.picture) if found.picture else ""
        image = f'<img src="{source}" alt="{escape(method.label)}">' if source else '<span class="gone"></span>'
        score = found.scores.get(column.name, math.nan) if column else math.nan
        mark = ""
        if found.status != MADE:
            mark = "n/a"
        elif column and not math.isnan(score):
            mark = ("✓" if score else "✗") if column.share and score in (0, 1) else words.value(score, column)
        cells.append(f'<div>{image}<span class="kind">{escape(method.kind)} {mark}</span></div>')
    caption = f"{escape(pair.prompt.text)} <small>seed {pair.seed}</small>"
    return f'<figure><div class="row">{"".join(cells)}</div><figcaption>{caption}</figcaption></figure>'


def _judge(judge: JudgeErrors | None) -> str:
    if judge is None or not judge.scenes:
        return ""

    def share(count: int, of: int) -> str:
        return f"{count} of {of} ({100 * count / of:.1f} %)"

    return (
        "<h2>The judge's own errors</h2><p>The judge of the little world is a small network. Measured in this run"
        f" on true pictures of its prompts: it called wrong {share(judge.refused_drawn, judge.scenes)} of them as they"
        f" are drawn, and {share(judge.refused_decoded, judge.scenes)} after the model's autoencoder, which every"
        " picture of the model comes out of. Held against prompts that are wrong in one point (the animal, the thing, a"
        f" number, the ground, ...), it called right {share(judge.accepted, judge.wrong)}; of true pictures with an"
        f" animal or a thing twice, {share(judge.passed, judge.doubled)}. It does not know the"
        " method whose picture it looks at, so its errors blur a difference and do not make one.</p>"
    )


def _method(summary: Summary) -> str:
    unit = "prompts, each with all of its seeds," if summary.by_prompt else "pairs of prompt and seed"
    return (
        "<h2>How it was measured</h2><p>Every method draws the same prompts from the same noise. Intervals: paired"
        f" bootstrap, {unit} drawn with replacement, the same draws for all methods, percentiles. p: exact sign test on"
        " the pairs that got better and worse (McNemar's, where the score is right or wrong). A picture to which the"
        " host did not apply AsynDM is left out of its method's numbers and counted above. Not corrected for"
        " the number of comparisons.</p><p><code>pictures.csv</code> holds every score, <code>differences.csv</code>"
        " every difference.</p>"
    )
