"""Would AsynDM help a network that has seen lagging objects in its training? The embedded model, trained on with them.

    python -m tests.lagging_training --steps 2500 --own 0.5 --out lagging
    asyndm evaluate --bfloat16 --weights lagging/weights --prompts 1000 --kind two --strength 0.7 --out lagging/run

In half of the pictures, some pixels are as far behind the others as on the quadratic curve at some strength from 0 to
1. In a share of those (--own) they are the picture's own objects; then the network learns that what lags is an object.
In the others they are where another picture has its objects, which tells nothing. It goes on from the package's
weights, which stay what they are, and can be stopped and started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from asyndm_ext.embedded.latent_pool import Batch
from asyndm_ext.embedded.model import TinyModel, load_tiny
from asyndm_ext.embedded.train import DiffusionTrainer, TrainSettings, run
from asyndm_ext.schedule import curve_height
from asyndm_ext.world.lagging import two_times

LAGGING = 0.5  # share of the pictures
COVERED = 0.25  # of a cell, from which on it is slow


def slow_pixels(cover: Tensor, side: int, share: float, generator: torch.Generator) -> Tensor:
    """Masks ``(B,1,side,side)`` of 0 and 1 from what the objects cover ``(B,G,cells,cells)``.

    ``share`` of those that are not empty are the picture's own.
    """
    cells = (cover.amax(dim=1, keepdim=True) > COVERED).float()
    number = len(cells)
    own = torch.rand(number, generator=generator) < share
    lagging = torch.rand(number, generator=generator) < LAGGING
    chosen = torch.where(own[:, None, None, None], cells, cells.roll(1, dims=0)) * lagging[:, None, None, None]
    return functional.interpolate(chosen, size=(side, side), mode="nearest")


class LaggingTrainer(DiffusionTrainer):
    """The usual training, with pixels that are noisier than others.

    ``own``: share of the lagging pictures in which these are the objects.
    """

    def __init__(self, model: TinyModel, settings: TrainSettings, own: float) -> None:
        super().__init__(model, settings)
        self.own = own

    def levels(
        self, times: Tensor, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, AbstractContextManager[None]]:
        last = self.model.config.train_timesteps
        strength = torch.rand(len(times), generator=generator)
        heights = [curve_height("quadratic", 1 - t / last, float(w)) for t, w in zip(times, strength, strict=True)]
        slow = (torch.stack(heights) * last).long().clamp(max=last - 1)
        mask = slow_pixels(batch.cover, batch.latents.shape[-1], self.own, generator)
        alphas = self.model.alphas_cumprod.float()
        alpha = torch.lerp(alphas[times][:, None, None, None], alphas[slow][:, None, None, None], mask)
        return alpha, two_times(self.model.unet, times, slow, mask)


def prepare(settings: TrainSettings, own: float, checkpoint: Path) -> LaggingTrainer:
    model = load_tiny()
    model.text_encoder.requires_grad_(True)
    model.unet.requires_grad_(True)
    trainer = LaggingTrainer(model, settings, own)
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, weights_only=True))
    return trainer


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("lagging"))
    parser.add_argument("--own", type=float, default=0.0, help="share of lagging objects (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.out / "checkpoint.pt"
    settings = TrainSettings(steps=arguments.steps, learning_rate=3e-4, warmup=200, bfloat16=True, seed=1)
    trainer = prepare(settings, arguments.own, checkpoint)
    run(trainer, checkpoint, minutes=4)
    trainer.averaged.save(arguments.out / "weights")


if __name__ == "__main__":
    main()
