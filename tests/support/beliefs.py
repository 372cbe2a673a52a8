"""The exact world's pictures under the conditions of docs/EVALUATE.md, and what its denoiser believes on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.evaluate.statistics import Bootstrap, Difference
from asyndm_ext.exact.config import ANIMALS, GROUNDS, Asked, ExactConfig, combinations
from asyndm_ext.exact.model import ExactModel
from asyndm_ext.exact.sampling import Conditions, sample
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.settings import Settings

CONDITIONS = Conditions("DDIM", steps=30, guidance=5.0, eta=1.0)
SEEDS = 75  # for each of 40 prompts: the 3000 pairs of docs/EVALUATE.md


def settings(**values: Any) -> Settings:
    return Settings.from_dict({"objects": ["animal"], "strength": 1.0, **values})


CLOCKS: dict[str, Settings | None] = {
    "Ordinary clock": None,
    "AsynDM, quadratic": settings(),
    "AsynDM, piecewise linear": settings(curve="piecewise linear"),
}
CONCAVE = settings(region="everything")


@cache
def world() -> ExactWorld:
    return ExactWorld(ExactConfig())


@cache
def prompts() -> list[Asked]:
    """Every unusual prompt with every seed, in the order of ``asyndm evaluate``: the seed is the place."""
    return combinations(2, usual=False) * SEEDS


@cache
def wanted() -> Tensor:
    """What they ask for, ``(n,2)``: ground and animal."""
    return torch.tensor([one.kinds for one in prompts()])


def drawn(
    own: Settings | None, conditions: Conditions = CONDITIONS, made: Callable[..., ExactModel] = ExactModel
) -> Tensor:
    """The kinds in finished pictures, ``(n,2)``."""
    with torch.inference_mode():
        return world().found(sample(world(), prompts(), range(len(prompts())), conditions, own, made=made))


def right(found: Tensor) -> NDArray[np.float64]:
    return (found == wanted()).all(dim=1).double().numpy()


def outcomes(found: Tensor) -> list[float]:
    """Shares: as asked, the asked ground with its usual animal, the asked animal on its usual ground, anything else."""
    ground, animal = (found == wanted()).T
    usual = found[:, 1] % len(GROUNDS) == found[:, 0]
    kinds = [ground & animal, ground & ~animal & usual, animal & ~ground & usual]
    shares = [float(kind.double().mean()) for kind in kinds]
    return [*shares, 1 - sum(shares)]


def gain(plain: Tensor, ours: Tensor) -> Difference:
    return Bootstrap(len(prompts())).compare(right(plain), right(ours))


@dataclass(frozen=True)
class Belief:
    """How probable the denoiser holds the animals to be, averaged over pictures; each without and with the prompt.

    Attributes:
        asked: the one that the prompt asks for.
        rival: those that usually stand on the ground that the prompt asks for.
    """

    asked: tuple[float, float]
    rival: tuple[float, float]

    @property
    def push(self) -> tuple[float, float]:
        """What guidance multiplies, cond - uncond: for the asked animal, for its rival."""
        return self.asked[1] - self.asked[0], self.rival[1] - self.rival[0]

    @property
    def net(self) -> float:
        """The push for the asked animal over its rival."""
        return self.push[0] - self.push[1]


def belief(animals: Tensor, kinds: Tensor) -> Belief:
    """Of the animals' posterior ``(2,n,8)`` where ``kinds`` ``(n,2)`` are asked for."""
    asked = animals[:, torch.arange(len(kinds)), kinds[:, 1]]
    rivals = torch.arange(len(ANIMALS)) % len(GROUNDS) == kinds[:, :1]
    rival = (animals * rivals).sum(-1)
    return Belief(*((float(one[0].mean()), float(one[1].mean())) for one in (asked, rival)))


def at_first(one: Asked, clear: bool) -> Belief:
    """Before anything is seen of the animal: with the ground as noisy, or with the ground clear and as asked for."""
    table = NoiseTable.from_alphas_cumprod(world().alphas_cumprod)
    model = ExactModel(world(), [one], 1.0, table, "sigma")
    x = torch.zeros(1, world().config.dimension, 1, 2, dtype=torch.float64)
    x[0, :, 0, 0] = world().kinds[0][one.kinds[0]] if clear else 0.0
    sigma = torch.tensor([0.01 if clear else 1e6, 1e6], dtype=torch.float64).view(1, 1, 1, 2)
    return belief(model.posterior(x, sigma).sum(2), torch.tensor([one.kinds]))


@dataclass(frozen=True)
class Seen:
    """At a step, averaged over all pictures: the animal's noise level, how sure the model is of both parts (the
    probability of the likeliest kind, given the prompt), and what it believes about the animal."""

    timestep: float
    ground: float
    animal: float
    belief: Belief


class Watched(ExactModel):
    """Writes down what it believes."""

    def __init__(self, *arguments: Any, into: list[Seen]) -> None:
        super().__init__(*arguments)
        self._into = into

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        alpha = self._table.alpha_at(level)
        posterior = self.posterior(x / alpha.sqrt(), ((1 - alpha) / alpha).sqrt())
        grounds, animals = posterior.sum(3), posterior.sum(2)
        ground, animal = (float(part[1].max(-1).values.mean()) for part in (grounds, animals))
        self._into.append(Seen(float(level[..., 1].mean()), ground, animal, belief(animals, wanted())))
        return super().__call__(x, nominal, level)


@cache
def watched(clock: str) -> tuple[Tensor, list[Seen]]:
    seen: list[Seen] = []
    return drawn(CLOCKS[clock], made=partial(Watched, into=seen)), seen


class OneGuided(ExactModel):
    """Guides one part (0 the ground, 1 the animal) and leaves the other as the prompt alone has it."""

    def __init__(self, *arguments: Any, part: int) -> None:
        super().__init__(*arguments)
        scale = torch.ones(1, 1, 1, 2, dtype=torch.float64)
        scale[..., part] = self._guidance
        self._guidance: Any = scale


def points(one: Difference) -> str:
    return f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
