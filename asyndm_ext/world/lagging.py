"""Second weights: the little world's network trained on with pixels that lag, as AsynDM makes them at sampling.

    python -m asyndm_ext.world.lagging --from asyndm_ext/world/weights --steps 2500 --out lagging
    asyndm evaluate --weights lagging/weights ...

An ordinary network has never seen two noise levels side by side. Here half of the pictures have one level, as before
(most of what a sampler asks is that), and in the other half some pixels are behind the others by as much as on the
quadratic or the piecewise linear curve at some strength from 0 to 1: up to pure noise beside half-finished ground.

Which pixels lag: the picture's own objects, one of its two objects alone (objects in turn), or those where another
picture of the batch has its objects, which tells nothing; a third each.

How clean the cleanest pixel of a picture may be is capped, which Patch Forcing (arXiv 2604.19141) found to be what
matters. Levels drawn pixel by pixel would leave something nearly clean in nearly every training picture, and a network
learns to lean on that; sampling never has it, for all pixels start from noise. So a picture's cleanest level is drawn
as the ordinary training draws its only one, and the pixels that lag are noisier, never cleaner: what is around them is
as clear as it is when the sampler comes to that level.

It goes on from weights that are there, which stay what they are, and can be stopped and started again. The scenes are
other ones than the first training's. Only the training sees the two times: what is written is an ordinary model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from asyndm_ext.clock.curves import curve_height
from asyndm_ext.world.drawer import Drawer
from asyndm_ext.world.model import WEIGHTS, WorldModel, load_world
from asyndm_ext.world.pool import Batch
from asyndm_ext.world.train import add_common, chosen, export, log_of, run
from asyndm_ext.world.trainers import DiffusionTrainer, TrainSettings

USUAL = TrainSettings(steps=2500, learning_rate=3e-4, warmup=200, seed=1)
CURVES = ("quadratic", "piecewise linear")
COVERED = 0.25
"""From how much of a cell on it is the object's."""


@contextmanager
def two_times(unet: UNet2DConditionModel, ground: Tensor, slow: Tensor, mask: Tensor) -> Iterator[None]:
    """Pixels of ``mask`` are conditioned on other timesteps, with gradients.

    The network itself has to be called with ``ground``. A block at a lower resolution sees every second (fourth, ...)
    pixel of the mask, as in sampling.

    Args:
        unet: of diffusers, whose ResNet blocks add a projection of the time embedding.
        ground, slow: timesteps ``(B,)`` outside and inside of the mask.
        mask: ``(B,1,H,W)``, 0 or 1, at the latent's size.
    """
    ground, slow, mask = ground.to(unet.device), slow.to(unet.device), mask.to(unet.device)
    both = unet.time_embedding(unet.time_proj(torch.cat([ground, slow])).to(unet.dtype))

    def hook(block: Any) -> Any:
        def add(conv: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> Tensor:
            own, behind = block.time_emb_proj(block.nonlinearity(both)).chunk(2)
            here = mask[:, :, :: mask.shape[-2] // out.shape[-2], :: mask.shape[-1] // out.shape[-1]]
            return out + (behind - own)[:, :, None, None] * here

        return block.conv1.register_forward_hook(add)

    handles = [hook(block) for block in unet.modules() if getattr(block, "time_emb_proj", None) is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lagging_pixels(cover: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Which pixels lag, ``(B,1,side,side)``, 0 or 1: none in half of the pictures.

    Args:
        cover: how much of each cell the animal and the thing cover ``(B,2,cells,cells)``, fractions.
        side: of the latent.
        generator: of the choices.
    """
    number = len(cover)
    on: dict[str, Any] = {"generator": generator, "device": cover.device}
    objects = (cover > COVERED).float()
    both = objects.amax(dim=1, keepdim=True)
    there = objects.flatten(2).amax(dim=2)  # (B,2)
    first = torch.where(there.sum(1) == 2, torch.rand(number, **on) < 0.5, there[:, 0] > 0)
    one = torch.where(first[:, None, None, None], objects[:, :1], objects[:, 1:])
    kinds = torch.stack([both, one, both.roll(1, dims=0)])
    chosen = kinds[torch.randint(len(kinds), (number,), **on), torch.arange(number, device=cover.device)]
    lags = torch.randperm(number, **on) < number // 2
    return F.interpolate(chosen * lags[:, None, None, None], size=(side, side), mode="nearest")


def lagging_times(last: int) -> Tensor:
    """How far pixels are that lag, ``(ways, last)``: timesteps of ``last`` by those of the others, never below.

    A way is a curve at a strength of 0, 0.01, ... 1.
    """
    progress = 1 - torch.arange(last, dtype=torch.float64) / last
    heights = [curve_height(curve, progress, percent / 100) for curve in CURVES for percent in range(101)]
    return (torch.stack(heights) * last).round().long().clamp(max=last - 1)


class LaggingTrainer(DiffusionTrainer):
    """The usual training, with pixels that are noisier than others."""

    def __init__(self, model: WorldModel, settings: TrainSettings, drawer: Drawer | None = None) -> None:
        super().__init__(model, settings, drawer)
        self._ways = lagging_times(model.config.train_timesteps).to(model.device)

    def behind(self, times: Tensor, generator: torch.Generator) -> Tensor:
        """Timesteps ``(B,)`` of the pixels that lag where the others are at ``times``."""
        ways = torch.randint(len(self._ways), times.shape, generator=generator, device=times.device)
        return self._ways[ways, times]

    def levels(self, times: Tensor, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        slow = self.behind(times, generator)
        mask = lagging_pixels(batch.cover, batch.latents.shape[-1], generator)
        alpha = torch.where(mask > 0, self._alphas[slow][:, None, None, None], self._alphas[times][:, None, None, None])
        return alpha, {"slow": slow, "mask": mask}

    def conditioned(self, inputs: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return two_times(self.model.unet, inputs["times"], inputs["slow"], inputs["mask"])


def trainer_of(
    model: WorldModel, settings: TrainSettings, device: str = "cpu", drawer: Drawer | None = None
) -> LaggingTrainer:
    """A trainer that goes on from a model: its text encoder and UNet change."""
    model = model.to(device)
    model.text_encoder.requires_grad_(True)
    model.unet.requires_grad_(True)
    return LaggingTrainer(model, settings, drawer)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--from", dest="source", type=Path, default=WEIGHTS, metavar="FOLDER", help="the weights to go on from")
    add("--out", type=Path, default=Path("lagging"), help="folder for checkpoint and weights (%(default)s)")
    add_common(parser, USUAL)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = build_parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = chosen(options, USUAL)
    with Drawer(options.processes) as drawer:
        trainer = trainer_of(load_world(options.source), settings, options.device, drawer)
        trainer.before = log_of(options.source)
        trainer.decoder = trainer.before["decoder"] if trainer.before else {}
        run(trainer, options.out / "lagging.pt", options.minutes, within=options.within)
    export(trainer, options.out / "weights")


if __name__ == "__main__":
    main()
