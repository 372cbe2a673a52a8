"""From results to numbers: the table of all pictures, and each method against plain, over everything and by kind."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asyndm_ext.evaluate.methods import CONDITIONS, Method, plain_of
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.plan import Key, Pair, Plan
from asyndm_ext.evaluate.statistics import Bootstrap, Difference, Floats
from asyndm_ext.evaluate.store import MADE, Result

EVERYTHING = "all"


@dataclass(frozen=True)
class Tally:
    """What became of a method's pictures."""

    made: int
    not_applied: int
    failed: int
    missing: int


class Summary:
    """The numbers of a run, as far as it has come.

    Args:
        plan: what was asked for.
        results: what is there.
        columns: the scores to compare.
        by_prompt: resample prompts with all of their seeds, instead of single pairs.
        resamples, seed: of the bootstrap.
        only: which pairs to look at; all of them if absent.
    """

    def __init__(
        self,
        plan: Plan,
        results: Mapping[Key, Result],
        columns: Sequence[Column],
        by_prompt: bool = False,
        resamples: int = 10_000,
        seed: int = 0,
        only: Callable[[Pair], bool] = lambda pair: True,
    ) -> None:
        self.plan, self.results, self.columns = plan, results, columns
        self.by_prompt, self._resamples, self._seed, self._only = by_prompt, resamples, seed, only

    @cached_property
    def pairs(self) -> list[Pair]:
        """Those that every method has been tried on: a run under way compares all methods on the same ones."""
        tried = [pair for pair in self.plan.pairs if all(pair.key(m) in self.results for m in self.plan.methods)]
        return [pair for pair in tried if self._only(pair)]

    @cached_property
    def kinds(self) -> list[str]:
        """:data:`EVERYTHING` and, if there are several, the kinds of prompts."""
        kinds = list(dict.fromkeys(pair.prompt.kind for pair in self.pairs))
        return [EVERYTHING, *kinds] if len(kinds) > 1 else [EVERYTHING]

    def of_kind(self, kind: str) -> list[Pair]:
        return [pair for pair in self.pairs if kind in (EVERYTHING, pair.prompt.kind)]

    def result(self, pair: Pair, method: Method) -> Result:
        return self.results[pair.key(method)]

    def scores(self, method: Method, column: Column, kind: str = EVERYTHING) -> Floats:
        """One per pair; NaN where the picture is not the method's or the column does not apply."""
        key = (method.id, column.name)
        if key not in self._scores:
            found = [self.result(pair, method) for pair in self.pairs]
            scores = [r.scores.get(column.name, math.nan) if r.status == MADE else math.nan for r in found]
            self._scores[key] = np.array(scores, dtype=np.float64)
        if kind == EVERYTHING:
            return self._scores[key]
        return self._scores[key][[pair.prompt.kind == kind for pair in self.pairs]]

    @cached_property
    def _scores(self) -> dict[tuple[str, str], Floats]:
        return {}

    def mean(self, method: Method, column: Column, kind: str = EVERYTHING) -> float:
        """Of the known scores; NaN: there is none."""
        scores = self.scores(method, column, kind)
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if len(known) else math.nan

    def tally(self, method: Method) -> Tally:
        found = [self.results.get(pair.key(method)) for pair in self.plan.pairs]
        states = [r.status.split(":")[0] for r in found if r is not None]
        return Tally(states.count(MADE), states.count("not applied"), states.count("failed"), found.count(None))

    def difference(
        self, method: Method, column: Column, kind: str = EVERYTHING, against: Method | None = None
    ) -> Difference:
        """The method against plain under the same conditions, or against another one."""
        other = against or plain_of(method, self.plan.methods)
        key = (method.id, other.id, column.name, kind)
        if key not in self._differences:
            scores = self.scores(other, column, kind), self.scores(method, column, kind)
            self._differences[key] = self._bootstrap(kind).compare(*scores)
        return self._differences[key]

    def interval(self, method: Method, column: Column, kind: str = EVERYTHING) -> tuple[float, float]:
        """Of the method's own mean."""
        return self._bootstrap(kind).interval(self.scores(method, column, kind))

    @cached_property
    def _differences(self) -> dict[tuple[str, ...], Difference]:
        return {}

    @cached_property
    def _bootstraps(self) -> dict[str, Bootstrap]:
        return {}

    def _bootstrap(self, kind: str) -> Bootstrap:
        if kind not in self._bootstraps:
            pairs = self.of_kind(kind)
            prompts = list(dict.fromkeys(pair.prompt.text for pair in pairs))
            groups = [prompts.index(pair.prompt.text) for pair in pairs] if self.by_prompt else len(pairs)
            self._bootstraps[kind] = Bootstrap(groups, self._resamples, self._seed)
        return self._bootstraps[kind]

    # -- tables

    def pictures_csv(self) -> str:
        """A line for every picture of the plan that is there, in the plan's order."""
        names = [column.name for column in self.columns]
        rows = [["prompt", "kind", "seed", "method", *CONDITIONS, "asyndm", "status", "note", "picture", *names]]
        for pair in self.plan.pairs:
            for method in self.plan.methods:
                found = self.results.get(pair.key(method))
                if found is None:
                    continue
                settings = " ".join(f"{key}={value}" for key, value in method.asyndm().items())
                host = [str(method.host[name]) for name in CONDITIONS]
                scores = [_number(found.scores.get(name, math.nan)) for name in names]
                told = [found.status, found.note, found.picture]
                rows.append(
                    [pair.prompt.text, pair.prompt.kind, str(pair.seed), method.label, *host, settings, *told, *scores]
                )
        return _csv(rows)

    def differences_csv(self) -> str:
        """A line for every method, kind of prompts and score."""
        rows = [["kind", "method", "score", "pairs", "plain", "mean", "difference", "low", "high"]]
        rows[0] += ["better", "worse", "p"]
        for kind in self.kinds:
            for method in self.plan.methods:
                for column in self.columns if method.kind != "plain" else ():
                    d = self.difference(method, column, kind)
                    numbers = [_number(x) for x in (d.plain, d.mean, d.difference, d.low, d.high)]
                    counts = [str(d.better), str(d.worse), _number(d.p)]
                    rows.append([kind, method.label, column.name, str(d.pairs), *numbers, *counts])
        return _csv(rows)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
