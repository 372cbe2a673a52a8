"""The exact posterior mean as a guided model with a level per pixel (:class:`asyndm_ext.run.Model`)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.exact.config import Asked
from asyndm_ext.exact.world import JITTER, ExactWorld
from asyndm_ext.model.prompt_effect import difference


class ExactModel:
    """Denoises parts that are at any mixture of levels, with and without the prompts, and guides.

    Args:
        world: where the pictures come from.
        asked: the prompts, one a picture.
        guidance: CFG scale.
        table: the noise levels.
        space: "sigma": x is ``signal + sigma*noise`` and the answer is denoised; "timestep": x is in VP space and the
            answer is eps.
    """

    def __init__(
        self,
        world: ExactWorld,
        asked: list[Asked],
        guidance: float,
        table: NoiseTable,
        space: Literal["sigma", "timestep"],
    ) -> None:
        self._world, self._guidance, self._table, self._space = world, guidance, table, space
        log_prior = world.log_prior.expand(len(asked), *world.sizes)
        # Without and with the prompt.
        self._log_weights = torch.stack([log_prior, log_prior + world.log_heed(asked)])
        objects = world.config.parts - 1
        # Where the objects are is known, and nothing else: object k is in pixel k + 1.
        own = torch.cat([torch.zeros(objects, 1), torch.eye(objects)], dim=1)
        self._attention = own[None, :, None].expand(len(asked), -1, -1, -1)
        self.last_uncond: Tensor | None = None
        self.tells_effect = False
        """Whether it tells, in place of the attention, where the prompt makes a difference."""
        self._effect: Tensor | None = None

    def attention(self) -> Tensor | None:
        return self._effect if self.tells_effect else self._attention

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        if self._space == "sigma":
            uncond, cond = self.denoised(x, level)
            self._effect = difference(cond, uncond)
        else:
            alpha = self._table.alpha_at(level)
            signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
            pictures = self.denoised(x / signal, noise / signal)
            self._effect = difference(*pictures)
            uncond, cond = ((x - signal * d) / noise for d in pictures)
        self.last_uncond = uncond.to(x)
        return (uncond + self._guidance * (cond - uncond)).to(x)

    def denoised(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means without and with the prompt.

        Of part k being kind j, x has density ``N(mu_j, (JITTER^2 + sigma_k^2) I)``; the posterior of all combinations
        follows from the weights, and a part's mean from its marginal.

        Args:
            x: ``(B,D,1,P)``, signal plus ``sigma`` times noise. sigma: ``(B,1,1,P)``.
        """
        parts, variance = self._parts(x, sigma)
        posterior = self._posterior(parts, variance)
        means = []
        for k, (own, kinds) in enumerate(zip(parts, self._world.kinds, strict=True)):
            others = [d + 2 for d in range(len(self._world.sizes)) if d != k]
            mean = posterior.sum(others) @ kinds  # (2,B,D)
            means.append(mean + JITTER**2 / variance[:, k, None] * (own - mean))
        uncond, cond = torch.stack(means, dim=-1).unsqueeze(3)
        return uncond, cond

    def posterior(self, x: Tensor, sigma: Tensor) -> Tensor:
        """How probable every combination of kinds is, without and with the prompt, ``(2,B,*sizes)``; else as above."""
        return self._posterior(*self._parts(x, sigma))

    def _posterior(self, parts: tuple[Tensor, ...], variance: Tensor) -> Tensor:
        world = self._world
        log_posterior = self._log_weights
        for k, (own, kinds) in enumerate(zip(parts, world.kinds, strict=True)):
            likelihood = -torch.cdist(own, kinds).square() / (2 * variance[:, k, None])  # (B,kinds)
            shape = [len(own), *(1,) * len(world.sizes)]
            shape[k + 1] = world.sizes[k]
            log_posterior = log_posterior + likelihood.view(shape)
        return torch.softmax(log_posterior.flatten(2), dim=-1).view_as(log_posterior)

    @staticmethod
    def _parts(x: Tensor, sigma: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The parts, ``(B,D)`` each, and what they vary around their kinds by, ``(B,P)``."""
        return x.double().squeeze(2).unbind(-1), JITTER**2 + sigma.double().flatten(1).expand(len(x), -1) ** 2
