"""The exact world: pictures of two or three parts whose posterior mean can be written down.

A picture is one pixel per part (the ground, an animal and, if there are three, a thing) with ``dimension`` channels.
Each part is one of a few kinds: a fixed random direction of length ``sqrt(dimension)`` with Gaussian jitter around it.
The prior ties the parts: with probability ``tie`` a part is its partner's usual one. The model knows all of this
exactly and listens to a prompt only softly: its conditional is the prior times ``exp(heed)`` for each part that is as
prompted, as a network trained on captions that are often wrong would have it.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from asyndm_ext.exact.config import ANIMALS, GROUNDS, THINGS, Asked, ExactConfig

TABLE_SIZE = 1000
JITTER = 0.3


class ExactWorld:
    """The prior and the kinds of a configuration. Part ``k`` is pixel ``k`` of a latent ``(B,dimension,1,parts)``."""

    def __init__(self, config: ExactConfig = ExactConfig()) -> None:  # noqa: B008 (immutable)
        self.config = config
        self.sizes = (len(GROUNDS), len(ANIMALS), len(THINGS))[: config.parts]
        generator = torch.Generator().manual_seed(config.seed)
        self.kinds = [self._directions(size, generator) for size in self.sizes]

    def _directions(self, number: int, generator: torch.Generator) -> Tensor:
        """``(number,dimension)``, each of length ``sqrt(dimension)``."""
        raw = torch.randn(number, self.config.dimension, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(raw, dim=1) * math.sqrt(self.config.dimension)

    @cached_property
    def log_prior(self) -> Tensor:
        """Of every combination of kinds, shape ``sizes``."""
        number = torch.meshgrid(*[torch.arange(size) for size in self.sizes], indexing="ij")
        weight = self._tied(number[1] % len(GROUNDS) == number[0], len(GROUNDS))
        if self.config.parts == 3:
            weight = weight * self._tied(number[2] == number[1] % len(GROUNDS), len(THINGS))
            weight = weight * self._tied(number[2] == number[0], len(THINGS))
        return (weight / weight.sum()).log()

    def _tied(self, usual: Tensor, number: int) -> Tensor:
        tie = torch.tensor(self.config.tie, dtype=torch.float64)
        return torch.where(usual, tie, (1 - tie) / (number - 1))

    def log_heed(self, asked: list[Asked]) -> Tensor:
        """What the prompts add to the log of the prior, ``(B,*sizes)``."""
        added = torch.zeros(len(asked), *self.sizes, dtype=torch.float64)
        for row, one in enumerate(asked):
            for part, kind in enumerate(one.kinds):
                added[row].select(part, kind).add_(self.config.heed)
        return added

    def found(self, latents: Tensor) -> Tensor:
        """Which kind each part of finished latents ``(B,D,1,P)`` is nearest to, ``(B,P)``."""
        parts = latents.double().squeeze(2).unbind(-1)
        return torch.stack([torch.cdist(x, own).argmin(1) for x, own in zip(parts, self.kinds, strict=True)], dim=1)

    @property
    def alphas_cumprod(self) -> Tensor:
        """``(1000,)`` float64: the share of signal variance at each timestep."""
        if self.config.noise == "sd":
            root = torch.linspace(0.00085**0.5, 0.012**0.5, TABLE_SIZE, dtype=torch.float64)
            return torch.cumprod(1 - root**2, 0)
        # Nichol and Dhariwal (2021), Eq. 17, with their limit on what a step may take away.
        t = torch.linspace(0, 1, TABLE_SIZE + 1, dtype=torch.float64)
        signal = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return torch.cumprod((signal[1:] / signal[:-1]).clamp_min(0.001), 0)
