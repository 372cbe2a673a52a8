"""Precision and recall of ``automatic_objects`` against hand-chosen object words.

Usage, from the repository root: ``python -m tests.prompt_report FOLDER [--misses]``

FOLDER holds pairs ``NAME.json`` (a list of prompts) and ``NAME_item.json`` with ``{"item_idx": {prompt: [word numbers,
counted from 0]}}``. Every second prompt of a set is *seen* (rules may be written while looking at it), the others are
*held out*: look at their figures, not at their misses. ``--misses`` therefore lists the seen half only.

A name of several words ("Darth Vader") is one found object; it is right if one of its words was chosen.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asyndm_ext.prompt.finder import automatic_objects
from asyndm_ext.prompt.syntax import plain_text


@dataclass
class Score:
    right: int = 0
    found: int = 0
    chosen: int = 0

    def add(self, found: set[str], chosen: set[str]) -> None:
        self.right += sum(not chosen.isdisjoint(name.split()) for name in found)
        self.found += len(found)
        self.chosen += len(chosen)

    def __add__(self, other: "Score") -> "Score":
        return Score(self.right + other.right, self.found + other.found, self.chosen + other.chosen)

    def __str__(self) -> str:
        precision, recall = self.right / max(self.found, 1), self.right / max(self.chosen, 1)
        return f"{precision:.3f} {recall:.3f} ({self.right}/{self.found}, {self.right}/{self.chosen})"


def read_set(path: Path) -> Iterable[tuple[str, set[str]]]:
    """Yield each prompt with its hand-chosen words; the parts of "cross-section" count as two."""
    chosen = json.loads(path.with_name(f"{path.stem}_item.json").read_text("utf-8"))["item_idx"]
    for prompt in json.loads(path.read_text("utf-8")):
        words = plain_text(prompt).replace(",", "").replace("-", " ").lower().split()
        yield prompt, {words[number] for number in chosen[prompt]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--misses", action="store_true", help="list the seen prompts with a difference")
    arguments = parser.parse_args()
    totals = [Score(), Score()]
    print(f"{'set':12} {'half':9} precision recall (right/found, right/chosen)")
    for path in sorted(arguments.folder.glob("*.json")):
        if not path.with_name(f"{path.stem}_item.json").exists():
            continue
        halves = [Score(), Score()]
        for number, (prompt, chosen) in enumerate(read_set(path)):
            found = {word.lower() for word in automatic_objects(prompt)}
            halves[number % 2].add(found, chosen)
            if arguments.misses and number % 2 == 0 and found != chosen:
                print(f"  {prompt.strip()!r}: missed {sorted(chosen - found)}, extra {sorted(found - chosen)}")
        for name, score in zip(("seen", "held out", "all"), (*halves, halves[0] + halves[1]), strict=True):
            print(f"{path.stem:12} {name:9} {score}")
        totals = [total + half for total, half in zip(totals, halves, strict=True)]
    for name, score in zip(("seen", "held out", "all"), (*totals, totals[0] + totals[1]), strict=True):
        print(f"{'overall':12} {name:9} {score}")


if __name__ == "__main__":
    main()
