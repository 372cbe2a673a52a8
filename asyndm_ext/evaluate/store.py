"""The results of a run on disk: lines are appended as pictures are made, so that a killed run goes on where it was.

``results.jsonl`` holds a first line that says what the pictures are made with, then one line per picture; scores that
are computed afterwards are appended as lines of their own. A line that a kill has torn is dropped at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asyndm_ext.evaluate.plan import Key

FILE = "results.jsonl"
MADE = "made"


@dataclass
class Result:
    """A picture that was made, or was not.

    Attributes:
        prompt, seed, method: its key; the method's id.
        status: :data:`MADE`; otherwise "not applied: ..." (the host drew its own picture instead) or "failed: ...".
        picture: file, relative to the run's folder; "" if there is none.
        note: what the host said beside the picture.
        scores: column to number; what does not apply to the prompt is absent.
        scales: the equivalent guidance scale of each step, where the method's name does not say it.
    """

    prompt: str
    seed: int
    method: str
    status: str = MADE
    picture: str = ""
    note: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    scales: list[float] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.prompt, self.seed, self.method

    @property
    def final(self) -> bool:
        """Whether making it again would change nothing: a failure is tried again at the next start."""
        return not self.status.startswith("failed")


class Store:
    """The results in a folder.

    Args:
        folder: of the run; made if absent.
        made_with: what has to be the same for results to be comparable (weights, size, ...); None: whatever it was.

    Raises:
        ValueError: the folder holds results that were made with something else, or, for None, no results.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.results: dict[Key, Result] = {}
        lines = self._whole_lines()
        if made_with is None and not lines:
            raise ValueError(f"there are no results in {folder}")
        head = lines[0] if made_with is None else {"made_with": json.loads(json.dumps(dict(made_with)))}
        self.made_with: dict[str, Any] = head["made_with"]
        folder.mkdir(parents=True, exist_ok=True)
        if not lines:
            self._append([head])
        elif lines[0] != head:
            differing = _differences(lines[0].get("made_with", {}), head["made_with"])
            raise ValueError(f"{self.path} was made with something else ({differing}); take another folder with --out")
        for line in lines[1:]:
            self._take(line)

    def add(self, results: Iterable[Result]) -> None:
        """Append finished pictures; when this returns they are on disk."""
        lines = [asdict(result) for result in results]
        self._append(lines)
        for line in lines:
            self._take(line)

    def add_scores(self, scores: Iterable[tuple[Key, Mapping[str, float]]]) -> None:
        """Append scores of pictures that are there already; they replace older ones of the same columns."""
        lines = [{"prompt": p, "seed": s, "method": m, "more": dict(found)} for (p, s, m), found in scores]
        self._append(lines)
        for line in lines:
            self._take(line)

    def done(self) -> set[Key]:
        """What need not be made again."""
        return {key for key, result in self.results.items() if result.final}

    def _take(self, line: dict[str, Any]) -> None:
        key = (line["prompt"], line["seed"], line["method"])
        if "more" in line:
            self.results[key].scores.update(line["more"])
        else:
            self.results[key] = Result(**line)

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _whole_lines(self) -> list[dict[str, Any]]:
        """The file's lines; a torn end is cut off."""
        if not self.path.is_file():
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return [json.loads(line) for line in whole.decode("utf-8").splitlines()]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!r} instead of {new.get(name)!r}" for name in names)
