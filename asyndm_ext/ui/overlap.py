"""Whether attention tells the objects apart, where one of them is to be drawn before another or to lag more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asyndm_ext.region.strengths import Strengths

MUCH = 0.5
"""Of what two objects cover together: if they share more, neither has much of its own."""


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
        """What the user should know, or None: the two that share most of those whose turns differ, or strengths.

        Args:
            names: per image its objects' names.
            strengths: of the objects.
        """
        if self._sum is None:
            return None
        shared = self._sum / self._looks
        for given in (strengths.until, strengths.own):
            if given is None:
                continue
            of = given.expand(shared.shape[:2])
            theirs = torch.where(of.unsqueeze(2) != of.unsqueeze(1), shared, 0.0)
            most = float(theirs.max())
            if most <= MUCH:
                continue
            image, first, second = (int(where[0]) for where in torch.where(theirs == most))
            one, other = names[image][first], names[image][second]
            if given is strengths.until:
                return (
                    f"{one!r} and {other!r} share {most:.0%} of their pixels, where the later one's turn counts: the "
                    "attention hardly tells them apart, so they are drawn at nearly the same time"
                )
            return (
                f"{one!r} and {other!r} share {most:.0%} of their pixels, where the larger strength counts: the "
                "attention hardly tells them apart, so they lag by nearly as much"
            )
        return None
