"""Folders for results: looked at before the work, and never written over."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import IO

_ROOM = 32 * 2**20
"""Bytes. Far more than one run of the embedded model writes; a disk with less is full."""


def check(folder: Path) -> None:
    """Whether results could be written there, as far as can be told without writing.

    Raises:
        ValueError: they could not; the message says why.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        if place.exists():
            raise ValueError(f"{place} is a file, not a folder; choose another folder with --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"nothing may be written in {place}; choose another folder with --out")
    free = shutil.disk_usage(place).free
    if free < _ROOM:
        raise ValueError(
            f"the disk of {place} is full ({free // 2**20} MiB left); make room, or choose another folder with --out"
        )


def save(wanted: Path, files: Mapping[str, Callable[[IO[bytes]], object]]) -> Path:
    """Write files into a folder that has none of these names: ``wanted``, or else ``wanted-2``, ``wanted-3``, ...

    After an error everything is as it was.

    Args:
        wanted: made if absent.
        files: name to what writes it.

    Returns:
        The folder.
    """
    for folder in _numbered(wanted):
        with contextlib.suppress(FileExistsError):
            _save(folder, files)
            break
    return folder


def _save(folder: Path, files: Mapping[str, Callable[[IO[bytes]], object]]) -> None:
    """Raises FileExistsError if one of them is there, also if it comes to be there meanwhile."""
    made: list[Path] = []
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (folder / name).exists():
                raise FileExistsError(folder / name)
        for name, write in files.items():
            with (folder / name).open("xb") as file:
                made.append(folder / name)
                write(file)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has put something there meanwhile
            for place in new:
                place.rmdir()
        raise


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    # "." and ".." cannot have a number behind them.
    stem = folder if folder.name not in ("", "..") else folder / "asyndm_out"
    for number in count(2):
        yield stem.with_name(f"{stem.name}-{number}")
