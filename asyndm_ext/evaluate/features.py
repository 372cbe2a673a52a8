"""Pictures as rows of numbers, kept on disk as they come, so that a run which is stopped goes on.

``NAME.f32`` holds the rows, ``NAME.jsonl`` a first line that says what made them and then the key of each row. A row is
written before its key; whatever a kill has torn is cut off at the next start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTES = 4


class Features:
    """Rows of numbers by key.

    Args:
        path: of the files, without their endings.
        width: numbers in a row.
        made_with: what has to be the same for rows to be comparable.

    Raises:
        ValueError: the files' rows were made with something else.
    """

    def __init__(self, path: Path, width: int, made_with: str) -> None:
        self._keys, self._rows, self._width = path.with_suffix(".jsonl"), path.with_suffix(".f32"), width
        self._place: dict[Hashable, int] = {}
        head = {"made_with": made_with, "width": width}
        lines = self._whole_lines()
        if not lines:
            self._append(self._keys, (json.dumps(head) + "\n").encode())
            self._rows.write_bytes(b"")
        elif json.loads(lines[0]) != head:
            raise ValueError(f"{self._keys} was made with other weights; take another folder with --out, or delete it")
        for line in lines[1:]:
            self._place[_key(json.loads(line))] = len(self._place)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._place

    def add(self, keys: Sequence[Hashable], rows: NDArray[np.float32]) -> None:
        """Append rows ``(keys, width)``; when this returns they are on disk."""
        if rows.shape != (len(keys), self._width):
            raise ValueError(f"{len(keys)} rows of {self._width} numbers were expected, not {rows.shape}")
        self._append(self._rows, np.ascontiguousarray(rows, dtype="<f4").tobytes())
        self._append(self._keys, "".join(json.dumps(key, ensure_ascii=False) + "\n" for key in keys).encode())
        for key in keys:
            self._place[key] = len(self._place)

    def rows(self, keys: Iterable[Hashable]) -> NDArray[np.float32]:
        """``(keys, width)``; KeyError for one that is not there."""
        places = [self._place[key] for key in keys]
        if not places:
            return np.zeros((0, self._width), dtype=np.float32)
        known = np.memmap(self._rows, dtype="<f4", mode="r", shape=(len(self._place), self._width))
        return np.asarray(known[places], dtype=np.float32)

    def _append(self, path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _whole_lines(self) -> list[str]:
        """The keys' lines that have a row; a torn end of either file is cut off."""
        if not self._keys.is_file():
            return []
        data = self._keys.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].decode().splitlines(keepends=True)
        size = self._rows.stat().st_size if self._rows.is_file() else 0
        lines = lines[: 1 + size // (_BYTES * self._width)]
        os.truncate(self._keys, len("".join(lines).encode()))
        if self._rows.is_file():
            os.truncate(self._rows, max(0, len(lines) - 1) * _BYTES * self._width)
        return lines


def _key(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value


def fingerprint(path: Path) -> str:
    """Of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
