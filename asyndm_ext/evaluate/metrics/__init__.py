"""Judges of pictures. Each gives one or several columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asyndm_ext.evaluate.prompts import Prompt


@dataclass(frozen=True)
class Column:
    """A score.

    Attributes:
        name: key in the results and column of the table.
        title: for people.
        help: what it says, one sentence.
        rises: more is better.
        share: the scores are fractions in [0, 1], shown in per cent.
        digits: behind the decimal point, if not.
    """

    name: str
    title: str
    help: str
    rises: bool = True
    share: bool = False
    digits: int = 2


class MetricUnavailable(RuntimeError):
    """A package or weights are missing; the message says which and what to do."""


class Metric(Protocol):
    """A judge."""

    columns: Sequence[Column]
    """The first is the one that matters most."""

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """Column to number for each picture; a column that does not apply to a prompt is left out."""


class SetMetric(Protocol):
    """A judge of all of a method's pictures at once, which sees each of them as a row of numbers."""

    name: str
    """Of the files that it keeps in the run's folder."""
    columns: Sequence[Column]
    """Scores of single pictures: none."""

    def features(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """``(pictures, features)``."""
