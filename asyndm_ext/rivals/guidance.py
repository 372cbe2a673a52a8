"""What a way to guide is given and gives back: the network's answers row by row, and one answer made of them.

Plain classifier-free guidance makes ``e_u + w * (e_c - e_u)`` of the answers without and with the prompt. A rival that
changes this formula is a :class:`Guidance`. Answers are the noise that the network sees (eps), or a rectified flow's v,
``(B,C,H,W)`` each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

Part = Literal["uncond", "cond", "perturbed"]
"""Of an image's rows in the batch: without the prompt, with it, and with it in a network that is made worse."""


@dataclass(frozen=True)
class Row:
    """Whose row of the network's batch it is."""

    image: int
    part: Part


class Unreadable(RuntimeError):
    """The network ran, and what a way to guide looks at was not to be seen."""


class Guidance(Protocol):
    """Makes one answer of an image's rows."""

    parts: tuple[Part, ...]
    """The rows that it needs of each image; "uncond" and "cond" are always there."""

    def attached(self) -> AbstractContextManager[Any]:
        """Hooks on the network live inside this block only."""

    def begin(self, latent_size: tuple[int, int]) -> None:
        """A step begins: forget what was seen; the next network calls are on latents of this ``(H, W)``."""

    def read(self, rows: Sequence[Row | None]) -> None:
        """The rows of the next network call's batch; None for rows of somebody else's, nothing to stop looking."""

    def combine(self, uncond: Tensor, cond: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """The guided answer."""


def equivalent_scale(uncond: Tensor, cond: Tensor, guided: Tensor) -> Tensor:
    """The CFG scale at which plain guidance would add as much to the answer without the prompt, ``(B,)``.

    ``|e - e_u| / |e_c - e_u|`` over all of an image's pixels ("Guidance Matters", arXiv 2602.22570); NaN where the
    prompt makes no difference.
    """
    added, prompt = ((e - uncond).float().flatten(1).norm(dim=1) for e in (guided, cond))
    return added / prompt.where(prompt > 0, float("nan"))


def projected_scale(moved: Tensor, prompt: Tensor) -> Tensor:
    """The same for a method that changes the step: how much of ``prompt`` there is in ``moved``, ``(B,)``.

    Args:
        moved: by how much the step has moved the latent beyond what the answer without the prompt would have.
        prompt: by how much plain guidance at scale 1 would have, from where the step began.
    """
    moved, prompt = moved.double().flatten(1), prompt.double().flatten(1)
    power = (prompt**2).sum(dim=1)
    return (moved * prompt).sum(dim=1) / power.where(power > 0, float("nan"))
