"""One step of each stage of the training: the diffusion, and the decoder that makes a picture of a latent.

All randomness of a step (which scenes, noise, times, exchanged captions) comes from the seed and the step's number
alone, so the step's number is the whole state of the random generators.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Protocol

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.world.attention_loss import attention_loss, word_attention
from asyndm_ext.world.blocks import CELLS
from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.model import WorldModel
from asyndm_ext.world.pool import Batch, PicturePool, ScenePool
from asyndm_ext.world.recorded import Recorded, Work

LOG_EVERY = 50


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the outcome, apart from the machine.

    ``exchanged``: the share of pictures whose caption is another picture's. Captions on the web lie; without lies the
    network believes the prompt at once, and guidance, through which the order of drawing acts, has nothing to do.
    ``deciding_times``: the part of the schedule (fractions of it, noise from sigma 0.2 to 13) in which it is settled
    what is where and what shape it has. ``deciding_share`` of the times come from there, the others from elsewhere.
    ``object_weight``: how much more the error counts where an animal or a thing is. They are a sixth of a picture, and
    less of its contrast: without it the network draws grounds for thousands of steps before it draws an animal.
    ``decoder_kept``: so many batches of pictures are at hand for the decoder, and now and then a new one replaces the
    oldest; 0: each step has pictures of its own.
    ``recorded``: the diffusion's steps are told to the GPU once and played from then on (:mod:`.recorded`).
    """

    steps: int = 8000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 300
    ema: float = 0.999
    clip: float = 1.0
    empty_prompts: float = 0.1
    exchanged: float = 0.3
    deciding_times: tuple[float, float] = (0.03, 0.75)
    deciding_share: float = 0.87
    object_weight: float = 4.0
    attention_weight: float = 0.02
    pool_blocks: int = 320
    pool_refresh: int = 6
    decoder_steps: int = 2400
    decoder_batch: int = 12
    decoder_kept: int = 0
    decoder_learning_rate: float = 2e-3
    bfloat16: bool = False
    channels_last: bool = False
    recorded: bool = False
    seed: int = 0


class Trainer(Protocol):
    """A stage of the training."""

    step: int

    @property
    def planned(self) -> int:
        """Steps in all, which the learning rate follows."""

    def plan(self, steps: int) -> None:
        """Make it so many steps in all."""

    def train_step(self) -> Tensor:
        """One optimizer step; returns its loss, a scalar on the device, for which nobody has waited."""

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to continue."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""


def rate_at(step: int, settings: TrainSettings) -> float:
    """The diffusion's learning rate at a step (from 0): linear warm-up, then half a cosine to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def spread_times(uniform: Tensor, settings: TrainSettings) -> Tensor:
    """Numbers in [0, 1) to fractions of the schedule, in the same order, more of them in the deciding part."""
    low, high = settings.deciding_times
    outside = (1 - settings.deciding_share) / (1 - (high - low))
    first, last = outside * low, outside * low + settings.deciding_share
    middle = low + (uniform - first) / settings.deciding_share * (high - low)
    return torch.where(uniform < first, uniform / outside, middle).where(
        uniform < last, high + (uniform - last) / outside
    )


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one step; neighbouring seeds and steps share nothing. Each kind of device has numbers of its
    own."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(device).manual_seed(mixed)


def as_numbers(kept: Iterable[Tensor]) -> list[float]:
    """Scalars of any device as numbers, for which the device is waited for."""
    return [one.item() for one in kept]


def unfused_attention() -> contextlib.AbstractContextManager[Any]:
    """Attention step by step: at these sizes the fused one's backward pass takes several times as long on a CPU."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # torch before 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)


def _precision(settings: TrainSettings, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in bfloat16 if asked for (weights and sums stay float32)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16)


def adamw(parameters: Iterable[Tensor], **options: Any) -> torch.optim.AdamW:
    """The optimizer; on a GPU one that takes few launches for all parameters."""
    held = list(parameters)
    return torch.optim.AdamW(held, fused=True if held[0].is_cuda else None, **options)


# --- pictures of latents ---------------------------------------------------------------------------------------------


class DecoderTrainer:
    """Stage 2, which can run beside stage 1: true pictures from their latents, with noise on these, because a sampler's
    are never exact. The edges' own term keeps outlines sharp."""

    def __init__(self, model: WorldModel, settings: TrainSettings, drawer: Drawer | None = None) -> None:
        self.model, self.settings = model, settings
        self._pictures = PicturePool(
            model.device, settings.seed + 1, settings.decoder_batch, settings.decoder_kept, drawer=drawer
        )
        self.trained = model.autoencoder.requires_grad_(True)
        self.optimizer = adamw(self.trained.parameters(), weight_decay=0.0)
        self.step = 0

    @property
    def planned(self) -> int:
        return self.settings.decoder_steps

    def plan(self, steps: int) -> None:
        self.settings = replace(self.settings, decoder_steps=steps)

    def train_step(self) -> Tensor:
        settings, device = self.settings, self.model.device
        ramp = min(1.0, (self.step + 1) / 50) * max(0.02, 1 - self.step / settings.decoder_steps)
        self.optimizer.param_groups[0]["lr"] = settings.decoder_learning_rate * ramp
        generator = step_generator(settings.seed, self.step, device)
        images = self._pictures.at(self.step, generator)
        latents = self.model.encode(images)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noise *= torch.rand(len(images), 1, 1, 1, generator=generator, device=device)
        with _precision(settings, device):
            decoded = self.trained.decode(latents + 0.25 * noise).float()
        edges = sum(F.l1_loss(decoded.diff(dim=d), images.diff(dim=d)) for d in (-1, -2))
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 0.5 * edges
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        state = {"model": self.trained.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        return {**state, "log": self.log()}

    def log(self) -> dict[str, int]:
        """The training's record."""
        settings = self.settings
        return {"steps_done": self.step, "batch": settings.decoder_batch, "kept": settings.decoder_kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


# --- the diffusion --------------------------------------------------------------------------------------------------


class DiffusionTrainer:
    """Stage 1: text encoder and UNet together on the scenes' latents.

    ``averaged`` is the exponential moving average of ``model``: what is sampled from and exported.
    """

    def __init__(self, model: WorldModel, settings: TrainSettings, drawer: Drawer | None = None) -> None:
        self.settings, self.model = settings, model.train()
        self.model.autoencoder.requires_grad_(False)
        if settings.channels_last:
            model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.trained = [*model.text_encoder.parameters(), *model.unet.parameters()]
        self._rate = torch.tensor(settings.learning_rate, device=model.device) if settings.recorded else None
        rate = settings.learning_rate if self._rate is None else self._rate
        recordable = settings.recorded and model.device.type == "cuda"
        self.optimizer = adamw(self.trained, lr=rate, weight_decay=0.01, capturable=recordable)
        self._work: Work = Recorded(self._worked) if settings.recorded else self._worked
        self._alphas = model.alphas_cumprod.float().to(model.device)
        self._empty = torch.tensor(model.tokenizer.encode(""), device=model.device)
        self.pool = ScenePool(model, settings.seed, settings.pool_blocks, refresh=settings.pool_refresh, drawer=drawer)
        self.step = 0
        self.seconds = 0.0
        self.decoder: dict[str, int] = {}  # the record of the decoder's training
        self.before: dict[str, Any] | None = None  # the log of the weights that it began with
        self.curve: list[list[float]] = []  # [step, mean loss, mean attention loss of the 50 steps up to it]
        self._recent: list[Tensor] = []
        self._recent_attention: list[Tensor] = []

    @property
    def planned(self) -> int:
        return self.settings.steps

    def plan(self, steps: int) -> None:
        self.settings = replace(self.settings, steps=steps)

    def train_step(self) -> Tensor:
        start, settings = time.perf_counter(), self.settings
        self.pool.advance(self.step)
        inputs = self.drawn(step_generator(settings.seed, self.step, self.model.device))
        self._go_at(rate_at(self.step, settings))
        loss, beside = self._work(inputs)
        self._average()
        self.step += 1
        self._recent.append(loss)
        self._recent_attention.append(beside)
        if self.step % LOG_EVERY == 0:
            means = [fmean(as_numbers(kept) or [0.0]) for kept in (self._recent, self._recent_attention)]
            self.curve.append([self.step, *means])
            self._recent, self._recent_attention = [], []
        self.seconds += time.perf_counter() - start
        return loss

    def _go_at(self, rate: float) -> None:
        """A recorded step reads its learning rate where it was when it was recorded."""
        self.optimizer.param_groups[0]["lr"] = rate if self._rate is None else self._rate.fill_(rate)

    def _worked(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """One step of the optimizer: its loss, and the attention's share of it."""
        self.optimizer.zero_grad()
        loss, beside = self.losses(inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        self.optimizer.step()
        return loss.detach(), beside.detach()

    def drawn(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All that chance decides in a step, and what follows from it before the networks are asked.

        The times are :func:`spread_times` of one number from each of ``batch`` equal parts, so that no batch is all
        noise.
        """
        settings, model = self.settings, self.model
        number = settings.batch
        on: dict[str, Any] = {"generator": generator, "device": model.device}
        batch = self.pool.batch(torch.randint(len(self.pool), (number,), **on))
        others = self.pool.batch(torch.randint(len(self.pool), (number,), **on)).ids
        noise = torch.randn(batch.latents.shape, **on)
        part = torch.arange(number, device=model.device) + torch.rand(number, **on)
        last = model.config.train_timesteps
        times = (spread_times(part / number, settings) * last).long().clamp(max=last - 1)
        chance = torch.rand(number, **on)
        empty = chance < settings.empty_prompts
        lied = ~empty & (chance < settings.empty_prompts + settings.exchanged * (1 - settings.empty_prompts))
        alpha, lag = self.levels(times, batch, generator)
        noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
        if settings.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        return {
            "times": times,
            "ids": torch.where(empty[:, None], self._empty, torch.where(lied[:, None], others, batch.ids)),
            "noisy": noisy,
            "target": alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents,
            "weights": self.weights(batch, alpha),
            "nouns": batch.nouns,
            "cover": batch.cover,
            # Where things are cannot be known in pure noise, nor from another picture's caption.
            "known": (100 * alpha.amin(dim=(1, 2, 3))).clamp(max=1) * ~(empty | lied),
            **lag,
        }

    def losses(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of what was :meth:`drawn`: mean squared error of v plus attention's loss (:mod:`.attention_loss`); and that.

        Nothing here waits for the device.
        """
        settings, model = self.settings, self.model
        precision = _precision(settings, model.device)
        attention = contextlib.nullcontext() if model.device.type == "cuda" else unfused_attention()
        with precision, attention, word_attention(model.unet, CELLS) as maps, self.conditioned(inputs):
            context = model.text_encoder(inputs["ids"])
            v = model.unet(inputs["noisy"], inputs["times"], encoder_hidden_states=context).sample
        error = (inputs["weights"] * (v.float() - inputs["target"]) ** 2).mean()
        beside = attention_loss(maps, inputs["nouns"], inputs["cover"], inputs["known"])
        return error + settings.attention_weight * beside, beside

    def weights(self, batch: Batch, alpha: Tensor) -> Tensor:
        """How much the error of each pixel counts ``(B,1,H,W)``, given the share of signal ``alpha`` ``(B,1,1,1)`` or
        ``(B,1,H,W)``.

        More on objects, once they can be told from the noise (sigma 4): before, that would teach the network to see
        objects everywhere.
        """
        cover = F.interpolate(batch.cover.sum(dim=1, keepdim=True), size=batch.latents.shape[-2:])
        return 1 + self.settings.object_weight * cover * (17 * alpha).clamp(max=1)

    def levels(self, times: Tensor, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of signal variance that is left of each picture at ``times`` ``(B,)``, ``(B,1,1,1)``, or of each
        pixel, ``(B,1,H,W)``; and what :meth:`conditioned` wants to know of it."""
        return self._alphas[times][:, None, None, None], {}

    def conditioned(self, inputs: Mapping[str, Tensor]) -> contextlib.AbstractContextManager[None]:
        """What the network, which is called with the times, is to be called within."""
        return contextlib.nullcontext()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average; its memory grows with the steps so that the start is soon forgotten."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        theirs = [*self.averaged.text_encoder.parameters(), *self.averaged.unet.parameters()]
        torch._foreach_lerp_(theirs, self.trained, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "recent": as_numbers(self._recent),
            "recent_attention": as_numbers(self._recent_attention),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve, self._recent = list(state["curve"]), list(map(torch.tensor, state["recent"]))
        self._recent_attention = list(map(torch.tensor, state["recent_attention"]))

    def log(self) -> dict[str, Any]:
        """The training's record: settings, figures and library versions."""
        return {
            "settings": asdict(self.settings),
            "steps_done": self.step,
            "seconds": round(self.seconds),
            "device": self.model.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "decoder": self.decoder,
            **({"before": self.before} if self.before else {}),
            "loss": [[int(step), round(loss, 5), round(attention, 4)] for step, loss, attention in self.curve],
        }
