"""The prompts of a run: sentences of the little world by kind, or a file, also in the paper's authors' format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from asyndm_ext.exact.config import ExactConfig, combinations
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects
from asyndm_ext.world.kinds import KINDS
from asyndm_ext.world.prompts import text_of_kind

_AROUND = ".,;:!?\"'()[]"
_TRIES = 50


@dataclass(frozen=True)
class Prompt:
    """What is asked for.

    Attributes:
        text: the prompt.
        kind: the table that it is counted in, besides the one over everything.
        objects: whose pixels are to be slow; empty: found automatically.
    """

    text: str
    kind: str
    objects: tuple[ObjectSpec, ...] = ()


def little_world(number: int, kinds: Sequence[str] = tuple(KINDS), seed: int = 0) -> list[Prompt]:
    """So many different prompts of each kind, kinds in turn; more of them begin with the same ones.

    Raises:
        ValueError: an unknown kind, or one of which there are not so many.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown kind {', '.join(map(repr, unknown))}; known are {', '.join(KINDS)}")
    return _in_turn([_of_kind(number, kind, seed) for kind in kinds])


def exact_world(config: ExactConfig, kinds: Sequence[str], number: int | None = None) -> list[Prompt]:
    """The exact world's prompts: "unusual" (no part is another's usual one) and "usual" ones, so many of each kind.

    Raises:
        ValueError: an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in ("unusual", "usual")]
    if unknown:
        raise ValueError(f"unknown kind {', '.join(map(repr, unknown))}; the exact world has unusual and usual prompts")
    lists = [combinations(config.parts, kind == "usual")[:number] for kind in kinds]
    return _in_turn([[Prompt(str(one), kind) for one in own] for kind, own in zip(kinds, lists, strict=True)])


def _of_kind(number: int, kind: str, seed: int) -> list[Prompt]:
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    found: dict[str, Prompt] = {}
    for _ in range(_TRIES * number):
        if len(found) == number:
            break
        text = str(text_of_kind(kind, rng))
        found.setdefault(text, Prompt(text, kind))
    if len(found) < number:
        raise ValueError(f"there are not {number} different prompts of the kind {kind!r}; take fewer and more seeds")
    return list(found.values())


def from_files(paths: Iterable[Path], strengths: bool = False) -> list[Prompt]:
    """The prompts of several files, files in turn; the kind is the file's name.

    Args:
        paths: see :func:`from_file`.
        strengths: take the objects' strengths from the files as well.
    """
    return _in_turn([from_file(path, strengths) for path in paths])


def _in_turn(lists: Sequence[list[Prompt]]) -> list[Prompt]:
    """One of each, then the next of each: a run that is cut short has seen all kinds alike."""
    return [prompt for prompt in chain.from_iterable(zip_longest(*lists)) if prompt is not None]


def from_file(path: Path, strengths: bool = False) -> list[Prompt]:
    """The prompts of one file.

    Text: one prompt a line. JSON: a list of prompts, or of ``{"prompt": ..., "kind": ..., "objects": ...}`` (objects as
    the API takes them). A list NAME.json with NAME_item.json beside it is a prompt set of the paper's authors:
    ``item_idx`` numbers the objects' words, ``item_k`` holds their strengths. The latter file alone will do.

    Raises:
        ValueError: the file holds something else, or nothing.
    """
    text = path.read_text(encoding="utf-8")
    items: dict[str, Any] = {}
    if path.suffix.lower() != ".json":
        entries: list[Any] = text.splitlines()
    else:
        entries = _json(path, text)
        if isinstance(entries, dict):
            items, entries = entries, list(entries.get("item_idx", ()))
        beside = path.with_name(f"{path.stem}_item.json")
        if not items and beside.is_file():
            items = _json(beside, beside.read_text(encoding="utf-8"))
    kind = path.stem.removesuffix("_item")
    prompts = [_entry(entry, kind, items, strengths, path) for entry in entries if entry != ""]
    if not prompts:
        raise ValueError(f"{path} holds no prompts")
    return list({prompt.text: prompt for prompt in prompts}.values())


def _json(path: Path, text: str) -> Any:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, (list, dict)) or (isinstance(found, dict) and "item_idx" not in found):
        raise ValueError(f"{path} is neither a list of prompts nor a file with 'item_idx'")
    return found


def _entry(entry: Any, kind: str, items: dict[str, Any], strengths: bool, path: Path) -> Prompt:
    if isinstance(entry, str):
        places = items.get("item_idx", {}).get(entry, ())
        weights = items.get("item_k", {}).get(entry, ()) if strengths else ()
        return Prompt(" ".join(entry.split()), kind, _numbered(entry, places, weights))
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise ValueError(f"{path}: a prompt is a text or a dictionary with 'prompt', not {entry!r}")
    objects = parse_objects(entry.get("objects"))
    if not strengths:
        objects = tuple(ObjectSpec(spec.name, None, spec.occurrence) for spec in objects)
    return Prompt(" ".join(entry["prompt"].split()), str(entry.get("kind", kind)), objects)


def _numbered(text: str, places: Sequence[int], strengths: Sequence[float]) -> tuple[ObjectSpec, ...]:
    """The objects whose words stand at these places, from 0.

    Where a number points behind the last word or to a word without a name (the authors' files have one such), all are
    left to be found automatically.
    """
    words = [word.strip(_AROUND) for word in text.split()]
    folded = [word.casefold() for word in words]
    specs = []
    for number, place in enumerate(places):
        if not (0 <= place < len(words)) or not words[place] or set(words[place]) & set(",:#"):
            return ()
        occurrence = folded[: place + 1].count(folded[place]) if folded.count(folded[place]) > 1 else None
        specs.append(ObjectSpec(words[place], strengths[number] if number < len(strengths) else None, occurrence))
    return tuple(specs)
