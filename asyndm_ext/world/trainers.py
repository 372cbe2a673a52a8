"""One step of each stage of the training: the diffusion, and the decoder that makes a picture of a latent.

All randomness of a step (which scenes, noise, times, exchanged captions) comes from the seed and the step's number
alone, so the step's number is the whole state of the random generators.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.embedded.attention_loss import attention_loss, word_attention
from asyndm_ext.embedded.train import DiffusionTrainer as _DiffusionTrainer
from asyndm_ext.embedded.train import precision, step_generator, unfused_attention
from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.pool import CELLS, ScenePool, pictures

LOG_EVERY = 50


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the outcome, apart from the machine.

    ``exchanged``: the share of pictures whose caption is another picture's. Captions on the web lie; without lies the
    network believes the prompt at once, and guidance, through which the order of drawing acts, has nothing to do.
    ``deciding_times``: the part of the schedule (fractions of it, noise from sigma 1.3 to 19) in which it is settled
    what is where. ``deciding_share`` of the times come from there, the others from everywhere else.
    """

    steps: int = 8000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 300
    ema: float = 0.999
    clip: float = 1.0
    empty_prompts: float = 0.1
    exchanged: float = 0.3
    deciding_times: tuple[float, float] = (0.35, 0.8)
    deciding_share: float = 0.6
    attention_weight: float = 0.02
    pool_blocks: int = 320
    pool_refresh: int = 6
    decoder_steps: int = 2400
    decoder_batch: int = 12
    decoder_learning_rate: float = 2e-3
    bfloat16: bool = False
    channels_last: bool = False
    seed: int = 0


class Trainer(Protocol):
    """A stage of the training."""

    step: int

    def train_step(self) -> float:
        """One optimizer step; returns its loss."""

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to continue."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""


def spread_times(uniform: Tensor, settings: TrainSettings) -> Tensor:
    """Numbers in [0, 1) to fractions of the schedule, in the same order, more of them in the deciding part."""
    low, high = settings.deciding_times
    outside = (1 - settings.deciding_share) / (1 - (high - low))
    first, last = outside * low, outside * low + settings.deciding_share
    middle = low + (uniform - first) / settings.deciding_share * (high - low)
    return torch.where(uniform < first, uniform / outside, middle).where(
        uniform < last, high + (uniform - last) / outside
    )


# --- pictures of latents ---------------------------------------------------------------------------------------------


class DecoderTrainer:
    """Stage 2, which can run beside stage 1: true pictures from their latents, with noise on these, because a sampler's
    are never exact. The edges' own term keeps outlines sharp."""

    def __init__(self, model: WorldModel, settings: TrainSettings, drawer: Drawer | None = None) -> None:
        self.model, self.settings, self._drawer = model, settings, drawer or Drawer()
        self.trained = model.autoencoder.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), weight_decay=0.0)
        self.step = 0

    def train_step(self) -> float:
        settings, device = self.settings, self.model.device
        ramp = min(1.0, (self.step + 1) / 50) * max(0.02, 1 - self.step / settings.decoder_steps)
        self.optimizer.param_groups[0]["lr"] = settings.decoder_learning_rate * ramp
        batch, generator = settings.decoder_batch, step_generator(settings.seed, self.step)
        coming = range(self.step, min(settings.decoder_steps, self.step + 1 + self._drawer.ahead))
        self._drawer.begin(settings.seed + 1, map(self._numbers, coming))
        images = pictures(self._drawer.scenes(settings.seed + 1, self._numbers(self.step))).to(device)
        latents = self.model.encode(images)
        noise = torch.randn(latents.shape, generator=generator) * torch.rand(batch, 1, 1, 1, generator=generator)
        with precision(settings.bfloat16, device):
            decoded = self.trained.decode(latents + 0.1 * noise.to(device)).float()
        edges = sum(F.l1_loss(decoded.diff(dim=d), images.diff(dim=d)) for d in (-1, -2))
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 0.5 * edges
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _numbers(self, step: int) -> range:
        """Of a step's scenes."""
        batch = self.settings.decoder_batch
        return range(step * batch, (step + 1) * batch)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.trained.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


# --- the diffusion --------------------------------------------------------------------------------------------------


class DiffusionTrainer(_DiffusionTrainer):
    """Stage 1: text encoder and UNet together on the scenes' latents; else as the embedded model's."""

    model: WorldModel  # type: ignore[assignment]
    settings: TrainSettings  # type: ignore[assignment]

    def __init__(self, model: WorldModel, settings: TrainSettings, drawer: Drawer | None = None) -> None:
        self._drawer = drawer
        if settings.channels_last:
            model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(model, settings)  # type: ignore[arg-type]

    def make_pool(self) -> ScenePool:
        settings = self.settings
        return ScenePool(
            self.model, settings.seed, settings.pool_blocks, refresh=settings.pool_refresh, drawer=self._drawer
        )

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of v over a batch, plus the attention's (:mod:`.attention_loss`).

        The times are :func:`spread_times` of one number from each of ``batch`` equal parts, so that no batch is all
        noise.
        """
        settings, model = self.settings, self.model
        batch = self.pool.batch(torch.randint(len(self.pool), (settings.batch,), generator=generator))
        others = self.pool.batch(torch.randint(len(self.pool), (settings.batch,), generator=generator)).ids
        noise = torch.randn(batch.latents.shape, generator=generator)
        part = torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)
        last = model.config.train_timesteps
        times = (spread_times(part / settings.batch, settings) * last).long().clamp(max=last - 1)
        chance = torch.rand(settings.batch, generator=generator)
        empty = chance < settings.empty_prompts
        lied = ~empty & (chance < settings.empty_prompts + settings.exchanged * (1 - settings.empty_prompts))
        ids = torch.where(lied[:, None], others, batch.ids)
        ids[empty] = torch.tensor(model.tokenizer.encode(""))
        alpha, conditioned = self.levels(times, batch, generator)
        noisy = (alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise).to(model.device)
        target = (alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents).to(model.device)
        if settings.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        products = precision(settings.bfloat16, model.device)
        attention = contextlib.nullcontext() if model.device.type == "cuda" else unfused_attention()
        with products, attention, word_attention(model.unet, CELLS) as maps, conditioned:
            context = model.text_encoder(ids.to(model.device))
            v = model.unet(noisy, times.to(model.device), encoder_hidden_states=context).sample
        error = F.mse_loss(v.float(), target)
        # Where things are cannot be known in pure noise, nor from another picture's caption.
        known = (100 * alpha.amin(dim=(1, 2, 3))).clamp(max=1) * ~(empty | lied)
        beside = attention_loss(maps, batch.nouns, batch.cover, known.to(model.device))
        self._recent_attention.append(beside.item())
        return error + settings.attention_weight * beside
