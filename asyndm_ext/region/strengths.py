"""How slow each object is over the steps: its own strength, and until when it lags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region.turns import turns, until
from asyndm_ext.settings import Settings

# Progress is a sum of float64 shares.
_SLACK = 1e-9


@dataclass(frozen=True)
class Strengths:
    """Strengths of objects, fractions, ``(n,)`` or per image ``(B,n)``, float64.

    Attributes:
        own: while the object lags.
        until: up to which progress that is, fractions of the same shape; None: to the end, all of them.
    """

    own: Tensor
    until: Tensor | None = None
    _known: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def differ(self) -> bool:
        """Whether not all objects of an image are slow alike."""
        return self.until is not None or bool((self.own != self.own[..., :1]).any())

    @classmethod
    def of(cls, given: Strengths | Tensor | Sequence[float]) -> Strengths:
        """As they are, or of numbers that stay."""
        return given if isinstance(given, Strengths) else cls(torch.as_tensor(given, dtype=torch.float64))

    def at(self, progress: float) -> Tensor:
        """For the transition that begins at this progress; the same tensor as long as nothing changes."""
        if self.until is None:
            return self.own
        lagging = progress < self.until - _SLACK
        number = int(lagging.sum())  # the later, the fewer: so it names them
        return self._known.setdefault(number, torch.where(lagging, self.own, 0.0))


def strengths_for(
    settings: Settings, specs: Sequence[Sequence[ObjectSpec | None]], places: Sequence[Sequence[object]]
) -> Strengths:
    """Of the objects of every image, ``(n,)`` where they are the same for all, else ``(B,n)``.

    Args:
        settings: a job's.
        specs: per image its objects, equally many (padded with None). places: where each stands in the prompt.
    """
    own, ends = [], []
    for image, where in zip(specs, places, strict=True):
        number = {spec.label.casefold(): k for k, spec in enumerate(image) if spec is not None}
        after = [[number[label.casefold()] for label in spec.after] if spec is not None else [] for spec in image]
        there = [k for k, spec in enumerate(image) if spec is not None]
        if any(after):
            told = turns([], settings.order, after)
        else:
            told = [None] * len(image)
            for k, turn in zip(there, turns([where[k] for k in there], settings.order), strict=True):
                told[k] = turn
        ends.append(until(told, settings.start, settings.end))
        own.append([settings.strength if spec is None or spec.strength is None else spec.strength for spec in image])
    strength, end = torch.tensor(own, dtype=torch.float64), torch.tensor(ends, dtype=torch.float64)
    if bool((strength == strength[0]).all()) and bool((end == end[0]).all()):
        strength, end = strength[0], end[0]
    return Strengths(strength, None if bool((end >= 1).all()) else end)
