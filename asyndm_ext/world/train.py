"""Train the model of the little world: seeded, resumable, on one CPU thread or a GPU.

    python -m asyndm_ext.world.train --out training --export

Two stages: the autoencoder, then text encoder and UNet together on its latents. Both write a checkpoint every few
minutes and go on from it when started again with the same ``--out``. All randomness of a step comes from the seed and
the step's number alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.embedded.attention_loss import attention_loss, word_attention
from asyndm_ext.embedded.train import DiffusionTrainer as _DiffusionTrainer
from asyndm_ext.embedded.train import TrainSettings as _TrainSettings
from asyndm_ext.embedded.train import export, save_atomically, step_generator, unfused_attention
from asyndm_ext.world.model import WEIGHTS, WorldModel
from asyndm_ext.world.pool import CELLS, ScenePool, pictures, scenes_of

_LOG_EVERY = 50


@dataclass(frozen=True)
class TrainSettings(_TrainSettings):
    """Everything that decides the outcome, apart from the machine; times are drawn evenly here.

    ``exchanged``: the share of pictures whose caption is another picture's. Captions on the web lie; without lies the
    network believes the prompt at once, and guidance, through which the order of drawing acts, has nothing to do.
    """

    steps: int = 8000
    learning_rate: float = 1e-3
    exchanged: float = 0.3
    pool_refresh: int = 6
    autoencoder_steps: int = 1500
    autoencoder_batch: int = 12


def _autocast(settings: TrainSettings, device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16)


class AutoencoderTrainer:
    """Stage 1. Noise on the latents makes the decoder forgiving; a penalty on their size keeps the encoder from
    escaping the noise by growing; the edges' own term keeps outlines sharp."""

    def __init__(self, model: WorldModel, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.optimizer = torch.optim.AdamW(model.autoencoder.parameters(), weight_decay=0.0)
        self.step = 0

    def train_step(self) -> float:
        """One optimizer step; returns its loss."""
        settings, device = self.settings, self.model.device
        ramp = min(1.0, (self.step + 1) / 50) * max(0.02, 1 - self.step / settings.autoencoder_steps)
        self.optimizer.param_groups[0]["lr"] = settings.autoencoder_learning_rate * ramp
        batch = settings.autoencoder_batch
        scenes = scenes_of(settings.seed + 1, range(self.step * batch, (self.step + 1) * batch))
        images = pictures(scenes).to(device)
        with _autocast(settings, device):
            latents = self.model.autoencoder.encode(images).float()
            noise = torch.randn(latents.shape, generator=step_generator(settings.seed, self.step)).to(device)
            decoded = self.model.autoencoder.decode(latents + 0.06 * noise).float()
        edges = sum(F.l1_loss(decoded.diff(dim=d), images.diff(dim=d)) for d in (-1, -2))
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 0.5 * edges + 1e-3 * latents.pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.autoencoder.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def finish(self) -> None:
        """Set the latents to mean 0 and deviation 1 per channel."""
        autoencoder, device = self.model.autoencoder, self.model.device
        latents = self.model.encode(pictures(scenes_of(self.settings.seed + 1, range(10**6, 10**6 + 192))).to(device))
        autoencoder.latent_mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
        autoencoder.latent_std.copy_(latents.std(dim=(0, 2, 3))[:, None, None])

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.autoencoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.autoencoder.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


class DiffusionTrainer(_DiffusionTrainer):
    """Stage 2. ``averaged`` is the moving average of ``model``: what is sampled from and exported."""

    settings: TrainSettings

    def make_pool(self) -> ScenePool:
        settings = self.settings
        return ScenePool(self.model, settings.seed, settings.pool_blocks, refresh=settings.pool_refresh)  # type: ignore[arg-type]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of v over a batch, one time from each of ``batch`` equal parts, plus the attention's."""
        settings, model = self.settings, self.model
        rows = torch.randint(len(self.pool), (settings.batch,), generator=generator)
        batch = self.pool.batch(rows)
        latents = batch.latents
        others = self.pool.batch(torch.randint(len(self.pool), (settings.batch,), generator=generator)).ids
        noise = torch.randn(latents.shape, generator=generator)
        part = torch.arange(settings.batch) + torch.rand(settings.batch, generator=generator)
        last = model.config.train_timesteps
        times = (part / settings.batch * last).long().clamp(max=last - 1)
        alpha = model.alphas_cumprod[times].float()[:, None, None, None]
        chance = torch.rand(settings.batch, generator=generator)
        empty = chance < settings.empty_prompts
        lied = ~empty & (chance < settings.empty_prompts + settings.exchanged * (1 - settings.empty_prompts))
        ids = torch.where(lied[:, None], others, batch.ids)
        ids[empty] = torch.tensor(model.tokenizer.encode(""))
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = (alpha.sqrt() * noise - (1 - alpha).sqrt() * latents).to(model.device)
        with _autocast(settings, model.device), unfused_attention(), word_attention(model.unet, CELLS) as maps:
            context = model.text_encoder(ids.to(model.device))
            v = model.unet(noisy.to(model.device), times.to(model.device), encoder_hidden_states=context).sample
        error = F.mse_loss(v.float(), target)
        # Where things are cannot be known in pure noise, nor from another picture's caption.
        known = (100 * alpha.amin(dim=(1, 2, 3))).clamp(max=1) * ~(empty | lied)
        attention = attention_loss(maps, batch.nouns, batch.cover, known.to(model.device))
        self._recent_attention.append(attention.item())
        return error + settings.attention_weight * attention


def run(trainer: Any, steps: int, checkpoint: Path, minutes: float, say: Callable[[str], None]) -> None:
    """Train to the planned end from the checkpoint, if there is one; save there and every so many minutes."""
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, map_location=trainer.model.device, weights_only=True))
        say(f"{checkpoint.stem}: continuing at step {trainer.step}")
    saved, losses, started, first = time.monotonic(), [], time.monotonic(), trainer.step
    while trainer.step < steps:
        losses.append(trainer.train_step())
        if trainer.step % _LOG_EVERY == 0:
            pace = (time.monotonic() - started) / (trainer.step - first)
            say(f"{checkpoint.stem} step {trainer.step}: loss {fmean(losses):.4f}, {pace:.2f} s a step")
            losses = []
        if trainer.step == steps or time.monotonic() - saved > 60 * minutes:
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
    parser.add_argument("--exchanged", type=float, default=TrainSettings.exchanged, help="share of captions that lie")
    parser.add_argument("--seed", type=int, default=TrainSettings.seed)
    parser.add_argument("--minutes", type=float, default=4.0, help="between two checkpoints")
    parser.add_argument("--export", action="store_true", help="write the weights into the package at the end")
    options = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, flush=True)

    torch.set_num_threads(options.threads)
    settings = TrainSettings(
        steps=options.steps, bfloat16=options.bfloat16, seed=options.seed, exchanged=options.exchanged
    )
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = WorldModel().to(options.device)
    first = AutoencoderTrainer(model, settings)
    run(first, settings.autoencoder_steps, options.out / "autoencoder.pt", options.minutes, say)
    first.finish()
    trainer = DiffusionTrainer(model, settings)  # type: ignore[arg-type]
    run(trainer, settings.steps, options.out / "diffusion.pt", options.minutes, say)
    if options.export:
        export(trainer, WEIGHTS)


if __name__ == "__main__":
    main()
