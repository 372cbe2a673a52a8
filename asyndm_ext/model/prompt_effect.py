"""Where the prompt makes a difference: how far the network's answers with it and without it are apart, pixel by pixel.

Guidance needs both answers anyway, so this costs nothing, and any network gives it. What is compared is what the two
take the finished picture for, at the latent's own resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def difference(cond: Tensor, uncond: Tensor) -> Tensor:
    """How far two answers ``(B,C,H,W)`` are apart, over their channels: ``(B,1,H,W)``, at least float32."""
    precise = torch.promote_types(cond.dtype, torch.float32)
    return (cond.to(precise) - uncond.to(precise)).square().mean(dim=1, keepdim=True).sqrt()


class PromptEffect:
    """Collects the answers of a guided call, whose rows a host may hand over in slices.

    Args:
        images: batch size.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self.begin()

    def begin(self) -> None:
        """A guided call begins."""
        self._cond: list[list[Tensor]] = [[] for _ in range(self._images)]
        self._uncond: list[Tensor | None] = [None] * self._images

    def take(self, answer: Tensor, images: Sequence[int], prompted: Sequence[bool | None]) -> None:
        """A slice of the rows.

        Args:
            answer: ``(N,C,H,W)``, or ``(N,C,1,H,W)``.
            images: the image that each row belongs to.
            prompted: whether the row has the prompt; None: it is no part of guidance.
        """
        for row, image, with_prompt in zip(answer, images, prompted, strict=True):
            if with_prompt:
                self._cond[image].append(row)
            elif with_prompt is not None and self._uncond[image] is None:
                self._uncond[image] = row

    def maps(self) -> Tensor | None:
        """The difference ``(B,1,H,W)``, of the mean of a prompt's parts; None where an answer was not asked for."""
        cond = [rows[0] if len(rows) == 1 else torch.stack(rows).mean(dim=0) for rows in self._cond if rows]
        uncond = [row for row in self._uncond if row is not None]
        if len(cond) < self._images or len(uncond) < self._images:
            return None
        found = difference(torch.stack(cond), torch.stack(uncond))
        return found.squeeze(2) if found.ndim == 5 else found
