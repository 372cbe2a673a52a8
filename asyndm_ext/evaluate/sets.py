"""All pictures of a method as a set: their features, looked up or made, and their distance from a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from asyndm_ext.commands import frame
from asyndm_ext.evaluate.distances import Distance, Reference, fid, groups_of, kid
from asyndm_ext.evaluate.features import Features
from asyndm_ext.evaluate.methods import Method, plain_of
from asyndm_ext.evaluate.metrics.inception import FEATURES, Inception
from asyndm_ext.evaluate.plan import Key, Pair, Plan
from asyndm_ext.evaluate.store import Store
from asyndm_ext.evaluate.summary import Summary

_FEWEST = 2
_BATCH = 16
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_THOUSAND = 1000  # KID is given so many times larger


@dataclass(frozen=True)
class Row:
    """A method's distances.

    Attributes:
        method: whose.
        pictures: how many have been looked at.
        values: by column, all of its pictures'.
        pairs: how many plain has made as well; 0 for plain itself.
        apart: by column, its distance minus plain's over these pairs.
    """

    method: Method
    pictures: int
    values: dict[str, Distance]
    pairs: int
    apart: dict[str, Distance]


def look(plan: Plan, judge: Inception, store: Store) -> None:
    """Take the features of the pictures that were not seen before, and of the reference's."""
    own = _opened(judge, store, judge.name)
    wanted: list[tuple[Key, Path]] = []
    for pair in plan.pairs:
        for method in plan.methods:
            found = store.results.get(pair.key(method))
            if found is not None and found.picture and found.key not in own:
                wanted.append((found.key, store.folder / found.picture))
    _take(judge, own, wanted, "pictures")
    if judge.reference.is_dir():
        _take(judge, _opened(judge, store, "reference"), _photographs(judge.reference), "reference")


def measured(summary: Summary, judge: Inception, store: Store, by_prompt: bool) -> list[Row]:
    """Every method's distances, as far as its pictures have been looked at.

    Raises:
        ValueError: the reference is not what it should be.
    """
    own, reference = _opened(judge, store, judge.name), _reference(judge, store)
    measures: dict[str, Callable[..., Distance]] = {"fid": fid}
    if reference.rows is not None:
        measures["kid"] = lambda *what: _scaled(kid(*what))

    known: dict[tuple[str, tuple[str, ...]], dict[str, Distance]] = {}  # plain's is asked for by every method

    def of(method: Method, pairs: Sequence[Pair]) -> dict[str, Distance]:
        what = (method.id, tuple(pair.slug for pair in pairs))
        if what not in known:
            known[what] = anew(method, pairs)
        return known[what]

    def anew(method: Method, pairs: Sequence[Pair]) -> dict[str, Distance]:
        groups = groups_of([pair.prompt.text if by_prompt else pair.slug for pair in pairs])
        rows = own.rows(pair.key(method) for pair in pairs).astype(np.float64)
        return {name: measure(rows, reference, groups) for name, measure in measures.items()}

    found = []
    for method in summary.plan.methods:
        pairs = [pair for pair in summary.plan.pairs if pair.key(method) in own]
        if len(pairs) < _FEWEST:
            continue
        row = Row(method, len(pairs), of(method, pairs), 0, {})
        if method.kind != "plain":
            plain = plain_of(method, summary.plan.methods)
            both = [pair for pair in pairs if pair.key(plain) in own]
            if len(both) >= _FEWEST:
                mine, theirs = of(method, both), of(plain, both)
                row = Row(method, len(pairs), row.values, len(both), {name: mine[name] - theirs[name] for name in mine})
        found.append(row)
    return found


def _opened(judge: Inception, store: Store, name: str) -> Features:
    return Features(store.folder / name, FEATURES, judge.fingerprint)


def _take(judge: Inception, known: Features, files: Sequence[tuple[Key, Path]], what: str) -> None:
    waiting = [(key, path) for key, path in files if key not in known]
    if not waiting:
        return
    with frame.progress(total=len(waiting), unit="picture", desc=f"{judge.name}, {what}") as bar:
        for start in range(0, len(waiting), _BATCH):
            some = waiting[start : start + _BATCH]
            pictures = []
            for _, path in some:
                with Image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            known.add([key for key, _ in some], judge.features(pictures))
            bar.update(len(some))


def _photographs(folder: Path) -> list[tuple[Key, Path]]:
    """The folder's pictures; one that has changed is another one."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _ENDINGS:
            stat = path.stat()
            found.append(((path.relative_to(folder).as_posix(), stat.st_size, str(stat.st_mtime_ns)), path))
    return found


def _reference(judge: Inception, store: Store) -> Reference:
    path = judge.reference
    try:
        if path.is_dir():
            known = _opened(judge, store, "reference")
            rows = known.rows(key for key, _ in _photographs(path) if key in known)
            return Reference.of_rows(rows.astype(np.float64))
        with np.load(path) as file:
            return Reference.of_statistics(file["mu"], file["sigma"])
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"fid: {path} cannot be a reference: {error}") from None


def _scaled(distance: Distance) -> Distance:
    without = distance.without
    return Distance(_THOUSAND * distance.value, None if without is None else _THOUSAND * without)
