"""The controls that a gain has to stand up to: plain guidance at its best, at the same strength, and at the same cost.

Most gains of guidance methods go when plain guidance is as strong as they are ("Guidance Matters", arXiv 2602.22570):
judges like strong guidance. So each method's equivalent guidance scale is measured while it draws
(:func:`asyndm_ext.rivals.guidance.equivalent_scale`), and plain pictures are drawn at that scale, with as many steps
and with as many model calls. AsynDM's scale is its CFG scale in every pixel, so its match is the plain picture itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from asyndm_ext.evaluate.methods import Method, plain_at, plain_of
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.plan import Key, Pair, Plan
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary

FILE = "matched.json"
_CLOSE = 0.05
"""Two scales that differ by less than this are one."""


@dataclass(frozen=True)
class Matched:
    """What a method is held against.

    Attributes:
        scale: its equivalent guidance scale, the mean over steps and pictures; NaN: not known.
        strong: plain at that scale in as many steps.
        dear: plain at that scale in as many model calls; the same one where the method makes no more of them.
    """

    scale: float
    strong: Method
    dear: Method


def equivalent(method: Method, pairs: Sequence[Pair], results: Mapping[Key, Result]) -> float:
    """The method's scale over these pairs; NaN: none is known."""
    if not method.rival:
        return float(method.host["guidance"])
    means = []
    for pair in pairs:
        found = results.get(pair.key(method))
        known = [scale for scale in found.scales if not math.isnan(scale)] if found is not None else []
        if known:
            means.append(sum(known) / len(known))
    return sum(means) / len(means) if means else math.nan


def over_steps(method: Method, pairs: Sequence[Pair], results: Mapping[Key, Result]) -> list[float]:
    """The scale of each step, the mean over pictures; empty: not known."""
    found = [r.scales for pair in pairs if (r := results.get(pair.key(method))) is not None and r.scales]
    longest = max(map(len, found), default=0)
    columns = [[one[i] for one in found if i < len(one) and not math.isnan(one[i])] for i in range(longest)]
    return [sum(column) / len(column) for column in columns if column]


def steps_for(method: Method) -> int:
    """In how many steps plain guidance makes as many model calls."""
    if not method.rival:
        return int(method.host["steps"])
    from asyndm_ext.rivals.choice import Rival  # needs torch

    return round(Rival(method.rival, method.rival_options).calls(int(method.host["steps"])))


def matched(plan: Plan, results: Mapping[Key, Result], folder: Path) -> dict[str, Matched]:
    """By the method's id. Scales that were chosen once stay, so that a run that goes on keeps its plain pictures.

    Args:
        plan: without the plain pictures that are asked for here.
        results: all of the plan's.
        folder: of the run, where the scales are kept.
    """
    path = folder / FILE
    kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {}
    for method in plan.methods:
        if method.kind == "plain":
            continue
        own = float(method.host["guidance"])
        scale = kept.get(method.id, math.nan)
        if math.isnan(scale):
            scale = equivalent(method, plan.pairs, results)
            if method.rival and not math.isnan(scale):
                kept[method.id] = scale = round(scale, 2)
        guidance = own if math.isnan(scale) or abs(scale - own) < _CLOSE else scale
        strong = plain_at(method.host, guidance=guidance)
        found[method.id] = Matched(scale, strong, plain_at(method.host, guidance=guidance, steps=steps_for(method)))
    if kept:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    return found


def complete(plan: Plan, results: Mapping[Key, Result]) -> bool:
    """Whether everything has been tried."""
    return all(pair.key(method) in results for pair in plan.pairs for method in plan.methods)


def extended(plan: Plan, found: Mapping[str, Matched]) -> Plan:
    """The plan with the plain pictures that its methods are held against."""
    there = {method.id for method in plan.methods}
    new: dict[str, Method] = {}
    for one in found.values():
        for method in (one.strong, one.dear):
            if method.id not in there:
                new.setdefault(method.id, method)
    return replace(plan, methods=[*plan.methods, *new.values()])


# --- which half chooses ---------------------------------------------------------------------------------------------


def chooses(pair: Pair, by: str) -> bool:
    """Whether a pair belongs to the half on which settings are chosen: the same in every run.

    Args:
        by: "prompts": a prompt's pairs stay together; "pairs".
    """
    text = pair.prompt.text if by == "prompts" else pair.slug
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 0


def best(summary: Summary, methods: Sequence[Method], column: Column) -> Method | None:
    """The one with the best mean; the first of those that are alike."""
    known = [(method, summary.mean(method, column)) for method in methods]
    known = [(method, mean) for method, mean in known if not math.isnan(mean)]
    if not known:
        return None
    return max(known, key=lambda one: one[1] if column.rises else -one[1])[0]


def rivals_of_plain(method: Method, methods: Sequence[Method]) -> list[Method]:
    """Plain pictures that differ from the method's own in guidance alone."""
    own = {name: value for name, value in method.host.items() if name != "guidance"}
    return [m for m in methods if m.kind == "plain" and all(m.host[name] == value for name, value in own.items())]


def settings_of(kind: str, methods: Sequence[Method]) -> list[Method]:
    """The methods of a kind under the central conditions, which are the first one's."""
    own = [method for method in methods if method.kind == kind]
    return [method for method in own if method.conditions == own[0].conditions]


def is_chosen_from_many(methods: Sequence[Method]) -> bool:
    """Whether any kind has several settings, of which a reader would take the best for a result."""
    kinds = sorted(method.kind for method in methods if method.kind != "plain")
    return any(a == b for a, b in pairwise(kinds))


def at_plains_best(summary: Summary, choosing: Summary, method: Method, column: Column) -> tuple[Method, Any] | None:
    """The best plain guidance under the method's other conditions, and the method's difference from it."""
    plain = best(choosing, rivals_of_plain(method, summary.plan.methods), column) or plain_of(
        method, summary.plan.methods
    )
    d = summary.difference(method, column, against=plain)
    return (plain, d) if d.pairs else None
