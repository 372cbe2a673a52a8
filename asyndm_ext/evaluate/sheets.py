"""Which pictures the report shows: pairs that a method changed for the better or the worse, drawn at random."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from asyndm_ext.evaluate.methods import Method, plain_of
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.plan import Pair
from asyndm_ext.evaluate.summary import Summary

_SIDE = 128


def changed(summary: Summary, method: Method, column: Column) -> tuple[list[Pair], list[Pair]]:
    """All pairs that score better than plain's picture, and all that score worse."""
    pairs = summary.of_kind("all")
    plain = summary.scores(plain_of(method, summary.plan.methods), column)
    difference = summary.scores(method, column) - plain
    gain = np.nan_to_num(difference if column.rises else -difference)
    better = [pair for pair, g in zip(pairs, gain, strict=True) if g > 0]
    return better, [pair for pair, g in zip(pairs, gain, strict=True) if g < 0]


def drawn(pairs: list[Pair], number: int, seed: int) -> list[Pair]:
    """So many of them at random, in their order."""
    chosen = set(random.Random(seed).sample(range(len(pairs)), min(number, len(pairs))))
    return [pair for place, pair in enumerate(pairs) if place in chosen]


def thumbnail(path: Path) -> str:
    """The picture as a data URL, at most :data:`_SIDE` wide and high; "" if the file is not there."""
    if not path.is_file():
        return ""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
