"""Whether attention tells the objects apart, where one of them is to be drawn before another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asyndm_ext.region.strengths import Strengths

MUCH = 0.5
"""Of what two objects cover together: if they share more, they have no turns of their own."""


class Overlap:
    """Looks at the objects' masks of a pass."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._looks = 0

    def see(self, weights: Tensor) -> None:
        """Take how much each cell belongs to each object, ``(B,n,h,w)``."""
        one, other = weights.flatten(2).unsqueeze(2), weights.flatten(2).unsqueeze(1)
        both, either = torch.minimum(one, other).sum(-1), torch.maximum(one, other).sum(-1)
        shared = both / either.clamp_min(1e-9)
        self._sum = shared if self._sum is None else self._sum + shared
        self._looks += 1

    def note(self, names: Sequence[Sequence[str]], strengths: Strengths) -> str | None:
        """What the user should know, or None: the two that share most of those whose turns differ.

        Args:
            names: per image its objects' names.
            strengths: of the objects.
        """
        if self._sum is None or strengths.until is None:
            return None
        until = strengths.until.expand(self._sum.shape[:2])
        differ = until.unsqueeze(2) != until.unsqueeze(1)
        shared = torch.where(differ, self._sum / self._looks, 0.0)
        most = float(shared.max())
        if most <= MUCH:
            return None
        image, first, second = (int(where[0]) for where in torch.where(shared == most))
        one, other = names[image][first], names[image][second]
        return (
            f"{one!r} and {other!r} share {most:.0%} of their pixels, where the later one's turn counts: the attention "
            "hardly tells them apart, so they are drawn at nearly the same time"
        )
