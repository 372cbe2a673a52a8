"""The way without any care for speed: an embedding per pixel, and explicit softmax in every attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyndm_ext.model.timesteps import QUANTUM, TimestepTable


def a_row_per_pixel(t: Tensor, by_patch: bool) -> TimestepTable:
    """The table of a map of timesteps ``(B,1,H,W)`` with a row for every pixel (or token), however alike they are."""
    side = 2 if by_patch else 1
    own = t[:, 0, ::side, ::side].double()
    h, w = own.shape[-2:]
    numbers = torch.arange(h * w).view(h, w)
    index = numbers.repeat_interleave(side, 0).repeat_interleave(side, 1)[: t.shape[-2], : t.shape[-1]]
    values = ((own / QUANTUM).round() * QUANTUM).flatten()
    return TimestepTable(values, index.expand(len(t), -1, -1), (h * w,) * len(t))


class ExplicitSoftmax:
    """Stands in for torch's attention, and averages the objects' probabilities as Eq. 7 does.

    Args:
        columns: for each image, for each object, its tokens' columns; conditional rows are the last ones.
        queries: how many image tokens the attentions have that count.
        text: tokens of the text.
        joint: text and image are attended to together, the text's tokens come first.
        network: whose attentions they are. Those of a UNet count in modules named ``attn2`` alone: where a block has no
            attention among the pixels, its ``attn1`` is one to the text as well.
    """

    def __init__(
        self, columns: Sequence[Sequence[Sequence[int]]], queries: int, text: int, joint: bool, network: nn.Module
    ) -> None:
        self._columns, self._queries, self._text, self._joint = columns, queries, text, joint
        self._layers = [m for name, m in network.named_modules() if name.rsplit(".", 1)[-1] == "attn2"]
        self._counts = joint
        self._found: list[Tensor] = []

    @contextmanager
    def attached(self) -> Iterator[ExplicitSoftmax]:
        def enter(*of_the_hook: Any) -> None:
            self._counts = True

        def leave(*of_the_hook: Any) -> None:
            self._counts = self._joint

        host = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = self._attend  # type: ignore[assignment]
        handles = [layer.register_forward_pre_hook(enter) for layer in self._layers]
        handles += [layer.register_forward_hook(leave) for layer in self._layers]
        try:
            yield self
        finally:
            functional.scaled_dot_product_attention = host
            for handle in handles:
                handle.remove()

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        start = self._text if self._joint else 0
        of_text = (q.shape[2], k.shape[2]) == (self._queries, self._text)
        of_both = k.shape[2] == start + self._queries
        if self._counts and (of_both if self._joint else of_text):
            own = weights[-len(self._columns) :, :, start:].float().mean(dim=1)
            found = [torch.stack([own[b, :, c].mean(dim=-1) for c in image]) for b, image in enumerate(self._columns)]
            self._found.append(torch.stack(found))
        return weights @ v

    def maps(self) -> Tensor:
        """``(B,n,cells)``, the average since the last call."""
        found, self._found = torch.stack(self._found).mean(dim=0).cpu(), []
        return found
