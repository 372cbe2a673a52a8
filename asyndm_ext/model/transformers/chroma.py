"""Chroma: Flux's blocks, with all modulations made at one place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.dit_time import Hooks, TokenTime
from asyndm_ext.model.transformers.flux import (
    double_modulations,
    first_double_block,
    flux_layout,
    last_modulation,
    single_modulations,
)
from asyndm_ext.model.transformers.layout import Layout


def is_chroma(network: Any) -> bool:
    return hasattr(network, "distilled_guidance_layer") and hasattr(first_double_block(network), "img_attn")


def layout(network: Any) -> Layout:
    return flux_layout(network, 2, lambda: ChromaTimeConditioning(network))


class ChromaTimeConditioning(TokenTime):
    """For Chroma, whose ``distilled_guidance_layer`` makes the vectors of all modulations.

    It takes for every vector 16 channels of the timestep's sinusoid, then guidance and the vector's number, and knows
    nothing of the text; so the timesteps of an image are the same in all its rows.
    """

    _TIME_CHANNELS = 16

    def __init__(self, network: Any) -> None:
        single, double = list(single_modulations(network)), list(double_modulations(network))
        super().__init__([*double, *single, last_modulation(network)], patch=2)
        self._layer: nn.Module = network.distilled_guidance_layer
        # The single blocks' vectors come first, then the double blocks' for the image, theirs for the text. The end's
        # are the last two, of however many: hosts make as many as the whole network has, or as this one has.
        at = 3 * len(single)
        first = [at + 6 * i for i in range(len(double))]
        self._first_vectors = [*first, *(3 * i for i in range(len(single))), -2]

    def _register(self) -> Hooks:
        yield self._layer.register_forward_pre_hook(self._before_layer)
        yield self._layer.register_forward_hook(self._after_layer)

    def _before_layer(self, module: nn.Module, args: tuple) -> tuple | None:
        """``(N, vectors, 64)`` -> ``(N + R, vectors, 64)``."""
        if self.table is None:
            return None
        batch = args[0]
        sinusoid = self._sinusoid(batch, self._TIME_CHANNELS)
        own = batch[:1].repeat(len(sinusoid), 1, 1)
        own[..., : self._TIME_CHANNELS] = sinusoid.unsqueeze(1)
        return (torch.cat([batch, own]),)

    def _after_layer(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if self.table is None:
            return None
        scalar = output[: len(self.rows)].clone()
        for number, modulation in enumerate(self._tokens.modulations):
            first = self._first_vectors[number] % output.shape[1]
            vectors = slice(first, first + modulation.chunks)
            self._tokens.give(number, output[:, vectors].unbind(dim=1))
            scalar[:, vectors] = modulation.neutral(scalar[:, vectors])
        return scalar
