"""Train the embedded model: seeded, resumable, on one CPU thread or a GPU.

    python -m asyndm_ext.embedded.train --steps 4500 --out training --threads 1 --export

Two stages. First the autoencoder, a few minutes, not resumable. Then text encoder and UNet together on its latents;
this stage writes a checkpoint every few minutes and continues from it when started again with the same ``--out``.
All randomness of a step (which scenes, noise, times, dropped prompts) comes from the seed and the step's
number alone, so the step's number is the whole state of the random generators.

``--export`` writes the averaged weights and the training's log into the package.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.embedded.attention_loss import attention_loss, word_attention
from asyndm_ext.embedded.latent_pool import Batch, LatentPool, draw_pictures
from asyndm_ext.embedded.model import WEIGHTS, TinyConfig, TinyModel

_LOG_EVERY = 50


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the outcome, apart from the machine.

    ``deciding_times``: the part of the schedule (fractions of it, noise from sigma 1.6 to 23) where it is settled what
    goes where: of true scenes with noise from below it nearly all are finished right, above it nothing of them is left.
    ``deciding_share`` of the times come from there, the others from everywhere.
    """

    steps: int = 4500
    batch: int = 32
    learning_rate: float = 7e-4
    warmup: int = 300
    ema: float = 0.999
    clip: float = 1.0
    empty_prompts: float = 0.1
    deciding_times: tuple[float, float] = (0.4, 0.82)
    deciding_share: float = 0.6
    attention_weight: float = 0.02
    pool_blocks: int = 320
    pool_refresh: int = 8
    autoencoder_steps: int = 700
    autoencoder_batch: int = 16
    autoencoder_learning_rate: float = 2e-3
    bfloat16: bool = False
    seed: int = 0


def rate_at(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step (from 0): linear warm-up, then half a cosine to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def spread_times(uniform: Tensor, settings: TrainSettings) -> Tensor:
    """Numbers in [0, 1) to fractions of the schedule, in the same order, more of them in the deciding part."""
    low, high = settings.deciding_times
    outside = 1 - settings.deciding_share
    inside = outside + settings.deciding_share / (high - low)
    first, last = outside * low, outside * low + inside * (high - low)
    middle = low + (uniform - first) / inside
    return torch.where(uniform < first, uniform / outside, middle).where(
        uniform < last, high + (uniform - last) / outside
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator for one step; neighbouring seeds and steps share nothing."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator().manual_seed(mixed)


def train_autoencoder(model: TinyModel, settings: TrainSettings, say: Callable[[str], None] = print) -> float:
    """Stage 1: fit the autoencoder, then set its latents to mean 0 and deviation 1. Returns the last loss.

    Noise on the latents makes the decoder forgiving (a sampler's latents are never exact); the small penalty on their
    size keeps the encoder from escaping the noise by growing.
    """
    autoencoder, device = model.autoencoder, model.device
    optimizer = torch.optim.AdamW(autoencoder.parameters(), weight_decay=0.0)
    seed, batch = settings.seed + 1, settings.autoencoder_batch  # scenes that stage 2 does not start with
    loss = torch.zeros(())
    for step in range(settings.autoencoder_steps):
        ramp = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / settings.autoencoder_steps))
        optimizer.param_groups[0]["lr"] = settings.autoencoder_learning_rate * ramp
        images = draw_pictures(seed, range(step * batch, (step + 1) * batch))[0].to(device)
        with precision(settings.bfloat16, device):
            latents = autoencoder.encode(images).float()
            noise = torch.randn(latents.shape, generator=step_generator(seed, step)).to(device)
            pictures = autoencoder.decode(latents + 0.1 * noise).float()
        error = F.l1_loss(pictures, images) + F.mse_loss(pictures, images)
        loss = error + 1e-3 * latents.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), settings.clip)
        optimizer.step()
        if (step + 1) % _LOG_EVERY == 0:
            say(f"autoencoder step {step + 1}: loss {loss.item():.4f}, latent deviation {latents.std().item():.2f}")
    latents = model.encode(draw_pictures(seed, range(10**6, 10**6 + 256))[0].to(device))
    autoencoder.latent_mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
    autoencoder.latent_std.copy_(latents.std(dim=(0, 2, 3))[:, None, None])
    return loss.item()


def precision(bfloat16: bool, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in bfloat16 if asked for (weights and sums stay float32)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


def unfused_attention() -> contextlib.AbstractContextManager[Any]:
    """Attention step by step: at these sizes the fused one's backward pass takes several times as long on a CPU."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # torch before 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)


class DiffusionTrainer:
    """Stage 2: text encoder and UNet on the latents of an autoencoder that is ready.

    ``averaged`` is the exponential moving average of ``model``: what is sampled from and exported.
    """

    def __init__(self, model: TinyModel, settings: TrainSettings) -> None:
        self.settings, self.model = settings, model.train()
        self.model.autoencoder.requires_grad_(False)
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.trained = [*model.text_encoder.parameters(), *model.unet.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=settings.learning_rate, weight_decay=0.01)
        self.pool = self.make_pool()
        self.step = 0
        self.seconds = 0.0
        self.curve: list[list[float]] = []  # [step, mean loss, mean attention loss of the 50 steps up to it]
        self._recent: list[float] = []
        self._recent_attention: list[float] = []

    def make_pool(self) -> Any:
        """Where the batches come from."""
        settings = self.settings
        return LatentPool(self.model, settings.seed, settings.pool_blocks, refresh=settings.pool_refresh)

    def train_step(self) -> float:
        """One optimizer step; returns its loss."""
        start, settings = time.perf_counter(), self.settings
        self.pool.advance(self.step)
        loss = self.loss(step_generator(settings.seed, self.step))
        self.optimizer.param_groups[0]["lr"] = rate_at(self.step, settings)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, settings.clip)
        self.optimizer.step()
        self._average()
        self.step += 1
        self._recent.append(loss.item())
        if self.step % _LOG_EVERY == 0:
            self.curve.append([self.step, fmean(self._recent), fmean(self._recent_attention or [0.0])])
            self._recent, self._recent_attention = [], []
        self.seconds += time.perf_counter() - start
        return loss.item()

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of v over a batch, plus the attention's (:mod:`.attention_loss`).

        The times are :func:`spread_times` of one number from each of ``batch`` equal parts, so that no batch is all
        noise.
        """
        settings, model = self.settings, self.model
        rows = torch.randint(len(self.pool), (settings.batch,), generator=generator)
        batch = self.pool.batch(rows)
        latents, ids = batch.latents, batch.ids
        noise = torch.randn(latents.shape, generator=generator)
        part = torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)
        last = model.config.train_timesteps
        times = (spread_times(part / settings.batch, settings) * last).long().clamp(max=last - 1)
        alpha, conditioned = self.levels(times, batch, generator)
        dropped = torch.rand(settings.batch, generator=generator) < settings.empty_prompts
        ids[dropped] = torch.tensor(model.tokenizer.encode(""))
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = (alpha.sqrt() * noise - (1 - alpha).sqrt() * latents).to(model.device)
        products = precision(settings.bfloat16, model.device)
        with products, unfused_attention(), word_attention(model.unet) as maps, conditioned:
            context = model.text_encoder(ids.to(model.device))
            v = model.unet(noisy.to(model.device), times.to(model.device), encoder_hidden_states=context).sample
        error = F.mse_loss(v.float(), target)
        if not settings.attention_weight:
            return error
        # Where the objects are cannot be known in pure noise.
        known = (100 * alpha.amin(dim=(1, 2, 3))).clamp(max=1) * ~dropped
        attention = attention_loss(maps, batch.nouns, batch.cover, known.to(model.device))
        self._recent_attention.append(attention.item())
        return error + settings.attention_weight * attention

    def levels(
        self, times: Tensor, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, contextlib.AbstractContextManager[None]]:
        """The share of signal variance that is left of each picture at ``times`` ``(B,)``, ``(B,1,1,1)``, or of each
        pixel, ``(B,1,H,W)``; and what the network, which is called with ``times``, is to be called within."""
        return self.model.alphas_cumprod[times].float()[:, None, None, None], contextlib.nullcontext()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average; its memory grows with the steps so that the start is soon forgotten."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        theirs = [*self.averaged.text_encoder.parameters(), *self.averaged.unet.parameters()]
        for mean, new in zip(theirs, self.trained, strict=True):
            mean.lerp_(new, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to continue; randomness is in ``step``."""
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "recent": self._recent,
            "recent_attention": self._recent_attention,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve, self._recent = list(state["curve"]), list(state["recent"])
        self._recent_attention = list(state["recent_attention"])

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
            "loss": [[int(step), round(loss, 5), round(attention, 4)] for step, loss, attention in self.curve],
        }


def save_atomically(state: Any, path: Path) -> None:
    """Write next to ``path``, then rename, so that a kill in between leaves the last good file."""
    partial = path.with_suffix(path.suffix + ".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def export(trainer: DiffusionTrainer, folder: Path = WEIGHTS) -> None:
    """Write the averaged weights, their configuration and the training's log."""
    trainer.averaged.save(folder)
    # One pair of the curve a line: short and readable in a diff.
    log = trainer.log()
    curve = ",\n".join("    " + json.dumps(pair) for pair in log.pop("loss"))
    text = json.dumps(log, indent=2).removesuffix("\n}") + f',\n  "loss": [\n{curve}\n  ]\n}}\n'
    (folder / "training_log.json").write_text(text, encoding="utf-8")


def prepare(settings: TrainSettings, out: Path, device: str, say: Callable[[str], None]) -> DiffusionTrainer:
    """A trainer with its autoencoder ready, continued from the checkpoint in ``out`` if there is one."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = TinyModel(TinyConfig()).to(device)
    first_stage, checkpoint = out / "autoencoder.pt", out / "checkpoint.pt"
    if first_stage.is_file():
        model.autoencoder.load_state_dict(torch.load(first_stage, map_location=device, weights_only=True))
    else:
        train_autoencoder(model, settings, say)
        save_atomically(model.autoencoder.state_dict(), first_stage)
    trainer = DiffusionTrainer(model, settings)
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
        say(f"continuing at step {trainer.step}")
    return trainer


def say(text: str) -> None:
    """Print a line at once, also into a file."""
    print(text, flush=True)


def run(trainer: DiffusionTrainer, checkpoint: Path, minutes: float) -> None:
    """Train to the planned end, with a checkpoint there and every so many minutes."""
    saved = time.monotonic()
    while trainer.step < trainer.settings.steps:
        trainer.train_step()
        last = trainer.step == trainer.settings.steps
        if trainer.step % _LOG_EVERY == 0:
            pace = trainer.seconds / trainer.step
            _, loss, attention = trainer.curve[-1]
            say(f"step {trainer.step}: loss {loss:.4f}, attention {attention:.2f}, {pace:.2f} s a step")
        if last or time.monotonic() - saved > 60 * minutes:
            save_atomically(trainer.state_dict(), checkpoint)
            saved = time.monotonic()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=TrainSettings.steps, help="planned steps of stage 2")
    parser.add_argument("--out", type=Path, default=Path("training"), help="folder for checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bfloat16", action="store_true", help="faster where the machine multiplies in bfloat16")
    parser.add_argument("--seed", type=int, default=TrainSettings.seed)
    parser.add_argument("--minutes", type=float, default=4.0, help="between two checkpoints")
    parser.add_argument("--export", action="store_true", help="write the weights into the package at the end")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint's weights and stop")
    options = parser.parse_args(argv)

    torch.set_num_threads(options.threads)
    settings = TrainSettings(steps=options.steps, bfloat16=options.bfloat16, seed=options.seed)

    trainer = prepare(settings, options.out, options.device, say)
    if not options.export_only:
        run(trainer, options.out / "checkpoint.pt", options.minutes)
    if options.export or options.export_only:
        export(trainer)


if __name__ == "__main__":
    main()
