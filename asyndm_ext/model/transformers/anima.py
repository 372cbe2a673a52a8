"""Anima (Cosmos Predict 2): blocks of self-attention, cross-attention to the text and feed-forward.

A modulation is the sum of what a block makes of the normed sinusoid and of what the time embedding makes for all blocks
alike. Tokens keep the picture's dimensions, ``(N, T, h, w, D)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.dit_time import Hooks, TokenTime
from asyndm_ext.model.token_modulation import Input, Modulation, Output
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown

_PARTS = ("self_attn", "cross_attn", "mlp")


def is_anima(network: Any) -> bool:
    block = next(iter(getattr(network, "blocks", [])), None)
    parts = [*_PARTS, *(f"adaln_modulation_{part}" for part in _PARTS)]
    return hasattr(network, "t_embedding_norm") and all(hasattr(block, part) for part in parts)


def layout(network: Any) -> Layout:
    return Layout(
        patch=int(network.patch_spatial),
        time=lambda: AnimaTimeConditioning(network),
        attentions=tuple(_attention(block.cross_attn) for block in network.blocks),
    )


def _attention(attn: Any) -> Attention:
    return Shown(attn.q_norm, ("queries",)), Shown(attn.k_norm, ("text_keys",))


class AnimaTimeConditioning(TokenTime):
    """For Anima, which embeds the sigma itself. The text is not modulated: the rows of an image are all alike."""

    def __init__(self, network: Any) -> None:
        last = network.final_layer
        self._adaln = [
            (getattr(block, f"adaln_modulation_{part}"), _modulation(getattr(block, part)))
            for block in network.blocks
            for part in _PARTS
        ]
        self._adaln.append((last.adaln_modulation, Modulation((Input(last.linear, 0, 1),))))
        super().__init__([one for _, one in self._adaln], int(network.patch_spatial), lambda t: t / 1000)
        self._embedding: nn.Module = network.t_embedder[1]
        self._norm: nn.Module = network.t_embedding_norm
        self._normed: Tensor | None = None
        self._added: Tensor | None = None

    def _register(self) -> Hooks:
        yield self._embedding.register_forward_pre_hook(self._before_embedding)
        yield self._embedding.register_forward_hook(self._after_embedding)
        yield self._norm.register_forward_hook(self._after_norm)
        for number, (linear, _) in enumerate(self._adaln):
            yield linear.register_forward_pre_hook(self._before_projection)
            yield linear.register_forward_hook(self._on_projection(number))

    def use(self, table: Any, rows: Any, along: Any = ()) -> list[Tensor]:
        self._normed = self._added = None
        return super().use(table, rows, along)

    # -- the batch's own ``(N, 1, D)``, and behind them the table's ``(R, 1, D)``

    def _before_embedding(self, module: nn.Module, args: tuple) -> tuple | None:
        if self.table is None:
            return None
        return (torch.cat([args[0], self._sinusoid(args[0], args[0].shape[-1]).unsqueeze(1)]),)

    def _after_embedding(
        self, module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """What is the same for all blocks is added here; the blocks themselves get nothing to add."""
        if self.table is None:
            return None
        sinusoid, self._added = output
        return sinusoid, torch.zeros_like(self._added[: len(self.rows)])

    def _after_norm(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if self.table is None:
            return None
        self._normed = output
        return output[: len(self.rows)]

    def _before_projection(self, module: nn.Module, args: tuple) -> tuple | None:
        return None if self.table is None else (self._normed,)

    def _on_projection(self, number: int) -> Callable:
        modulation = self._adaln[number][1]

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if self.table is None:
                return None
            assert self._added is not None
            made = output + self._added[..., : output.shape[-1]]
            chunks = made.flatten(0, 1).unflatten(-1, (modulation.chunks, -1))
            self._tokens.give(number, chunks.unbind(dim=1))
            own = made[: len(self.rows)].unflatten(-1, (modulation.chunks, -1))
            return modulation.neutral(own).flatten(-2)

        return hook


def _modulation(module: nn.Module) -> Modulation:
    return Modulation((Input(module, 0, 1),), (Output(module, 2),))
