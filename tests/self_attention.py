"""The little world's attention spread by its self-attention, as S-CFG does it: a remedy that was tried on masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.rivals.semantic import attention, mixed


class Spreading(GuidedUNet):
    """Its attention is what each cell looks at together with the cells that it belongs to."""

    def __init__(self, unet: nn.Module, *rest: Any, **named: Any) -> None:
        super().__init__(unet, *rest, **named)
        self._layers = [getattr(one, "attn1") for one in unet.modules() if hasattr(one, "attn1")]  # noqa: B009
        self._own: list[Tensor] = []

    @contextmanager
    def attached(self) -> Iterator[GuidedUNet]:
        queries: dict[int, Tensor] = {}

        def on_query(number: int) -> Callable[..., None]:
            return lambda module, args, q: queries.__setitem__(number, q)

        def on_key(number: int, layer: Any) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple, k: Tensor) -> None:
                half = len(k) // 2  # the rows with the prompt come second
                self._own.append(attention(queries.pop(number)[half:], k[half:], layer))

            return hook

        handles = []
        try:
            for number, layer in enumerate(self._layers):
                handles.append(layer.to_q.register_forward_hook(on_query(number)))
                handles.append(layer.to_k.register_forward_hook(on_key(number, layer)))
            with super().attached():
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self._own.clear()
        return super().__call__(x, nominal, level)

    def attention(self) -> Tensor | None:
        maps = super().attention()
        if maps is None:
            return None
        squares = [one for one in self._own if one.shape[-1] == one.shape[-2]]  # the finest layers have none
        most = max(len(one[0]) for one in squares)
        return spread(maps, torch.stack([one for one in squares if len(one[0]) == most]).mean(0))


def spread(maps: Tensor, own: Tensor) -> Tensor:
    """The objects' attention ``(B,n,h,w)`` under the self-attention ``(B,L,L)`` of its cells, or of larger ones of
    several: ``T @ C``."""
    by = round((maps.shape[-2] * maps.shape[-1] / own.shape[-1]) ** 0.5)  # both grids have the picture's shape
    coarse = F.avg_pool2d(maps, by)
    rows = [mixed(one.to(m), m.flatten(-2).T).T for one, m in zip(own, coarse, strict=True)]
    return F.interpolate(torch.stack(rows).unflatten(-1, coarse.shape[-2:]), maps.shape[-2:], mode="bilinear")
