"""People vote: a page that shows pictures of the same noise side by side, and what to make of their answers.

As in the AsynDM paper's Figure 5 (64 groups; "the one that best matches the description"). The page is one file and
needs no server. It does not say which picture is whose, and neither does a voter's file: that stands in
:data:`KEY`, which stays with who asks.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.plan import Pair
from asyndm_ext.evaluate.statistics import Bootstrap, Difference, Floats
from asyndm_ext.evaluate.summary import Summary

PAGE, KEY, FOLDER = "vote.html", "vote_key.json", "votes"
GROUPS = 64
"""The paper's number."""
NONE = -1
"""A vote for none of the pictures: they are alike."""
_HERE = Path(__file__).parent
_SIDE = 640
_MOST = 6


@dataclass(frozen=True)
class Group:
    """Pictures of the same prompt and noise.

    Attributes:
        prompt, seed: whose.
        methods: ids, in the order in which the page knows them; nobody sees that order either.
    """

    prompt: str
    seed: int
    methods: tuple[str, ...]


def groups_of(summary: Summary, folder: Path, methods: Sequence[Method], number: int, seed: int) -> list[Group]:
    """So many groups at random, as many of each kind of prompts, each in a random order.

    Args:
        summary, folder: of the run.
        methods: between which people choose.
        number: of groups. seed: of the choice and of the orders.

    Raises:
        ValueError: less than two methods, or more than can be looked at, or no pair has pictures of all of them.
    """
    if not 2 <= len(methods) <= _MOST:
        raise ValueError(f"a vote is between 2 to {_MOST} methods, not {len(methods)}; choose with --vote-methods")
    rng = random.Random(seed)
    by_kind: dict[str, list[Pair]] = {}
    for pair in summary.pairs:
        names = [summary.result(pair, method).picture for method in methods]
        if all(name and (folder / name).is_file() for name in names):
            by_kind.setdefault(pair.prompt.kind, []).append(pair)
    for pairs in by_kind.values():
        rng.shuffle(pairs)
    found: list[Group] = []
    while len(found) < number and any(by_kind.values()):
        for pairs in by_kind.values():
            if pairs and len(found) < number:
                pair = pairs.pop()
                order = [method.id for method in methods]
                rng.shuffle(order)
                found.append(Group(pair.prompt.text, pair.seed, tuple(order)))
    if not found:
        raise ValueError("there are no pictures of all of these methods to vote on yet")
    rng.shuffle(found)
    return found


def write(summary: Summary, folder: Path, methods: Sequence[Method], number: int, seed: int) -> Path:
    """The page and its key; returns the page's path. Raises ValueError as :func:`groups_of`."""
    groups = groups_of(summary, folder, methods, number, seed)
    shown = []
    for group in groups:
        pictures = [summary.results[group.prompt, group.seed, method].picture for method in group.methods]
        shown.append({"prompt": group.prompt, "pictures": [_data(folder / picture) for picture in pictures]})
    name = hashlib.sha256(json.dumps([shown, seed]).encode()).hexdigest()[:12]
    path = folder / KEY
    key = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    key[name] = [{"prompt": g.prompt, "seed": g.seed, "methods": list(g.methods)} for g in groups]
    _write(path, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    (folder / FOLDER).mkdir(exist_ok=True)
    data = json.dumps({"page": name, "groups": shown}, ensure_ascii=False).replace("</", "<\\/")
    text = (_HERE / "vote.html").read_text(encoding="utf-8").replace("/*DATA*/", data)
    _write(folder / PAGE, text)
    return folder / PAGE


def _data(path: Path) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# --- what came back -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Votes:
    """All voters' answers to one page.

    Attributes:
        groups: the page's.
        choices: by voter, the chosen method's id for each group that was answered, or "" for none of them.
    """

    groups: Sequence[Group]
    choices: dict[str, dict[int, str]]

    @property
    def methods(self) -> list[str]:
        return sorted(self.groups[0].methods)

    @property
    def count(self) -> int:
        return sum(map(len, self.choices.values()))

    def shares(self, method: str) -> Floats:
        """Of each group, how much of its votes the method got, ``(groups,)``; NaN: nobody voted.

        A vote for none is a part of a vote for each.
        """
        found = np.full(len(self.groups), np.nan)
        for number, group in enumerate(self.groups):
            own = [choices[number] for choices in self.choices.values() if number in choices]
            if own:
                found[number] = np.mean([1 / len(group.methods) if not one else float(one == method) for one in own])
        return found

    def preference(self, method: str, over: str, resamples: int = 10_000, seed: int = 0) -> Difference:
        """By how much the method is chosen more often than another one; groups are drawn with all of their votes."""
        bootstrap = Bootstrap(len(self.groups), resamples, seed)
        return bootstrap.compare(self.shares(over), self.shares(method))

    def interval(self, method: str, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
        """Of the method's share of all votes."""
        return Bootstrap(len(self.groups), resamples, seed).interval(self.shares(method))

    def agreement(self) -> tuple[float, float] | None:
        """How often two voters of a group choose the same, and Fleiss' kappa (0: as by chance); None: one voter."""
        answers = [*self.methods, ""]
        counts = np.array(
            [
                [sum(own.get(number) == answer for own in self.choices.values()) for answer in answers]
                for number in range(len(self.groups))
            ],
            dtype=np.float64,
        )
        counts = counts[counts.sum(axis=1) >= 2]
        if not len(counts):
            return None
        voters = counts.sum(axis=1)
        same = float(((counts * (counts - 1)).sum(axis=1) / (voters * (voters - 1))).mean())
        chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
        return same, (same - chance) / (1 - chance) if chance < 1 else 1.0


def read(folder: Path) -> list[Votes]:
    """What lies in the run's folder of votes, page by page; files of other runs' pages are left out.

    Raises:
        ValueError: a file is not a voter's.
    """
    path = folder / KEY
    if not path.is_file():
        return []
    key = {
        name: [Group(one["prompt"], one["seed"], tuple(one["methods"])) for one in groups]
        for name, groups in json.loads(path.read_text(encoding="utf-8")).items()
    }
    found: dict[str, dict[str, dict[int, str]]] = {}
    for file in sorted((folder / FOLDER).glob("*.json"), key=lambda file: file.stem):
        page, voter, votes = _voter(file)
        if page in key:
            # Each group of a voter's counts once: as in the last file by name, which browsers call "... (1)".
            found.setdefault(page, {}).setdefault(voter, {}).update(_named(file, key[page], votes))
    return [Votes(key[page], choices) for page, choices in found.items()]


def _voter(file: Path) -> tuple[str, str, list[Any]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return str(data["page"]), str(data["voter"]), list(data["votes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a voter's file: {error}") from None


def _named(file: Path, groups: Sequence[Group], votes: Sequence[Any]) -> dict[int, str]:
    choices = {}
    for vote in votes:
        try:
            number, place = int(vote[0]), int(vote[1])
            if number < 0 or place < NONE:
                raise IndexError(f"no such vote: {vote}")
            choices[number] = "" if place == NONE else groups[number].methods[place]
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is not a voter's file: {error}") from None
    return choices


# --- in the report --------------------------------------------------------------------------------------------------


def section(votes: Sequence[Votes], labels: dict[str, str]) -> str:
    """What people preferred.

    Args:
        votes: page by page.
        labels: of the methods, by id.
    """
    return "".join(_page(one, labels) for one in votes if one.count)


def _page(votes: Votes, labels: dict[str, str]) -> str:
    names = {method: labels.get(method, method) for method in votes.methods}
    plain = next((method for method in votes.methods if names[method] == "plain"), None)
    rows = []
    for method in sorted(votes.methods, key=lambda one: -float(np.nanmean(votes.shares(one)))):
        low, high = votes.interval(method)
        share = f"{100 * float(np.nanmean(votes.shares(method))):.1f} %"
        interval = "" if np.isnan(low) else f"<small>[{100 * low:.1f} to {100 * high:.1f}]</small>"
        told = ""
        if plain is not None and method != plain:
            d = votes.preference(method, plain)
            told = f"{100 * d.difference:+.1f}"
            if d.known:
                told += f"<small>[{100 * d.low:+.1f} to {100 * d.high:+.1f}]</small>"
        rows.append(
            f'<tr><th>{escape(names[method])}</th><td data-of="preferred">{share}{interval}</td>'
            f'<td data-of="more often than plain">{told}</td></tr>'
        )
    agreement = votes.agreement()
    agree = (
        f" Two voters of the same group agreed in {100 * agreement[0]:.0f} % (Fleiss' kappa {agreement[1]:.2f}; 0 is"
        " chance, 1 is always)."
        if agreement
        else " One voter alone: how far others would agree is not known."
    )
    voters = "1 voter" if len(votes.choices) == 1 else f"{len(votes.choices)} voters"
    answered = int(np.sum(~np.isnan(votes.shares(votes.methods[0]))))
    return (
        f"<h2>What people preferred</h2><p>{votes.count} votes of {voters} on {answered} of {len(votes.groups)} groups"
        " of pictures from the same noise, methods hidden and shuffled: which one matches the text best? A vote for"
        f" none is a part of a vote for each. Intervals: groups drawn with all of their votes.{agree}</p>"
        '<div class="wide"><table class="numbers"><thead><tr><th></th><th>preferred</th><th>more often than plain</th>'
        f"</tr></thead>{''.join(rows)}</table></div>"
    )
