"""Train the model of the little world: seeded, resumable, on one CPU thread or a GPU.

    python -m asyndm_ext.world.train --out training --export

Two stages: text encoder and UNet together on the scenes' latents; and the decoder that makes pictures of latents,
which can run beside the first stage (``--stage decoder``). Each writes a checkpoint every few minutes and goes on from
it when started again with the same ``--out``. ``--export`` writes the averaged weights and the training's log into the
package, or into a folder that is named. On a GPU (``--processes``: the machine's cores but one):

    python -m asyndm_ext.world.train --device cuda --bfloat16 --channels-last --recorded --batch 256 --within 420 \\
        --pool-blocks 300 --pool-refresh 3 --processes 15
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from asyndm_ext.world.drawer import Drawer, scenes_of
from asyndm_ext.world.model import WEIGHTS, WorldModel, load_world
from asyndm_ext.world.pool import pictures
from asyndm_ext.world.trainers import (
    LOG_EVERY,
    DecoderTrainer,
    DiffusionTrainer,
    Trainer,
    TrainSettings,
    as_numbers,
)

_CALIBRATION = 256  # scenes
_PACED = 100
"""Steps before the pace is measured, and steps over which it is; later it is measured anew now and then."""
_REPLANNED = 1000
LOG = "training_log.json"
_STAGES = ("diffusion", "decoder")


def save_atomically(state: Any, path: Path) -> None:
    """Write next to ``path``, then rename, so that a kill in between leaves the last good file."""
    partial = path.with_suffix(path.suffix + ".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def say(text: str) -> None:
    """Print a line at once, also into a file."""
    print(text, flush=True)


def run(
    trainer: Trainer,
    checkpoint: Path,
    minutes: float,
    tell: Callable[[str], None] = say,
    within: float | None = None,
    until: int | None = None,
) -> None:
    """Train to the planned end from the checkpoint, if there is one; save there and every so many minutes.

    With ``within`` the plan is made anew once the pace is known: as many steps as fit into these seconds. ``until``
    stops at this step, wherever the plan ends.
    """
    began = saved = time.monotonic()
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
        tell(f"{checkpoint.stem}: continuing at step {trainer.step}")
    first, losses = trainer.step, []
    paced, planned_at = began, 0
    while trainer.step < (until or trainer.planned):
        losses.append(trainer.train_step())
        done = trainer.step - first
        if within and (done in (_PACED, 2 * _PACED) or done % _REPLANNED == 0):
            losses[-1].item()  # so that the clock is read when the steps are done
            now = time.monotonic()
            if done == 2 * _PACED or (done > _PACED and now - began < 0.95 * within):
                pace = (now - paced) / (done - planned_at)
                trainer.plan(trainer.step + int((within - (now - began)) / pace))
                tell(f"{checkpoint.stem}: {1000 * pace:.1f} ms a step, so {trainer.planned} steps in all")
            paced, planned_at = now, done
        if trainer.step % LOG_EVERY == 0:
            mean, pace = fmean(as_numbers(losses)), (time.monotonic() - began) / done
            tell(f"{checkpoint.stem} step {trainer.step}: loss {mean:.4f}, {pace:.3g} s a step")
            losses = []
        if trainer.step >= (until or trainer.planned) or time.monotonic() - saved > 60 * minutes:
            save_atomically(trainer.state_dict(), checkpoint)
            saved = time.monotonic()


def export(trainer: DiffusionTrainer, folder: Path = WEIGHTS) -> None:
    """Write the averaged weights, their configuration and the training's log."""
    trainer.averaged.save(folder)
    text = json.dumps(trainer.log(), indent=2)
    # One point of the curve a line: short and readable in a diff.
    text = re.sub(r"\[\s+([^\s,\[\]]+),\s+([^\s,\[\]]+),\s+([^\s,\[\]]+)\s+\]", r"[\1, \2, \3]", text)
    (folder / LOG).write_text(text + "\n", encoding="utf-8")


def log_of(folder: Path) -> dict[str, Any] | None:
    """The log of the training that made these weights, if it is there."""
    file = folder / LOG
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def train(
    settings: TrainSettings,
    out: Path,
    device: str,
    minutes: float,
    stage: str | None = None,
    drawer: Drawer | None = None,
    within: float | None = None,
    source: Path | None = None,
) -> DiffusionTrainer:
    """Both stages, or one of them; the trainer of the first one, with all weights in its averages.

    Args:
        settings: what is trained.
        out: folder of the checkpoints.
        device: where.
        minutes: between two checkpoints.
        stage: "diffusion" or "decoder" leaves the other one as its checkpoint has it.
        drawer: of the scenes; without one they are drawn in this process.
        within: as many steps of a stage as fit into these seconds, whatever the settings plan.
        source: folder of weights to begin with; without it they are drawn at random.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    if source is None:
        model = WorldModel()
        model.autoencoder.calibrate(pictures(scenes_of(settings.seed + 2, range(_CALIBRATION))))
    else:
        model = load_world(source).requires_grad_(True)
    trainer = DiffusionTrainer(model.to(device), settings, drawer)
    trainer.before = None if source is None else log_of(source)
    if stage in (None, "diffusion"):
        run(trainer, out / "diffusion.pt", minutes, within=within)
    elif (out / "diffusion.pt").is_file():
        trainer.load_state_dict(torch.load(out / "diffusion.pt", map_location="cpu", weights_only=True))
    decoder = DecoderTrainer(model, settings, drawer)
    trainer.decoder = decoder.log()
    if stage in (None, "decoder"):
        run(decoder, out / "decoder.pt", minutes, within=within)
        trainer.decoder = decoder.log()
    elif (out / "decoder.pt").is_file():
        state = torch.load(out / "decoder.pt", map_location="cpu", weights_only=True)
        decoder.load_state_dict(state)
        trainer.decoder = state["log"]
    elif trainer.before is not None:
        trainer.decoder = trainer.before["decoder"]
    trainer.averaged.autoencoder.load_state_dict(model.autoencoder.state_dict())
    return trainer


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, usual = parser.add_argument, TrainSettings()
    add("--decoder-steps", type=int, default=usual.decoder_steps, help="planned steps of the decoder (%(default)s)")
    add("--decoder-batch", type=int, default=usual.decoder_batch, help="its pictures a step (%(default)s)")
    add("--decoder-kept", type=int, default=usual.decoder_kept, help="batches of them at hand (%(default)s)")
    add("--from", dest="source", type=Path, metavar="FOLDER", help="weights to begin with, not those of chance")
    add("--stage", choices=_STAGES, help="this one alone, with what it needs")
    add("--out", type=Path, default=Path("training"), help="folder for checkpoints (%(default)s)")
    add("--export", type=Path, nargs="?", const=WEIGHTS, metavar="FOLDER", help="write the weights at the end")
    add_common(parser, usual)
    return parser


def add_common(parser: argparse.ArgumentParser, usual: TrainSettings) -> None:
    """The options of every training of the diffusion: what it is trained on, and on which machine."""
    add = parser.add_argument
    add("--steps", type=int, default=usual.steps, help="planned steps of the diffusion (%(default)s)")
    add("--batch", type=int, default=usual.batch, help="its pictures a step (%(default)s)")
    add("--exchanged", type=float, default=usual.exchanged, help="share of captions that lie (%(default)s)")
    add("--pool-blocks", type=int, default=usual.pool_blocks, help="times 32 scenes are at hand (%(default)s)")
    add("--pool-refresh", type=int, default=usual.pool_refresh, help="steps between 32 new scenes (%(default)s)")
    add("--seed", type=int, default=usual.seed)
    add("--threads", type=int, default=1, help="of the training itself (%(default)s)")
    add("--processes", type=int, default=0, help="that draw the scenes; 0: the training's own (%(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--bfloat16", action="store_true", help="faster where the machine multiplies in bfloat16")
    add("--channels-last", action="store_true", help="faster on a GPU")
    add("--recorded", action="store_true", help="faster on a GPU: steps are told to it once")
    add("--within", type=float, metavar="SECONDS", help="as many steps of each stage as fit into these")
    add("--minutes", type=float, default=4.0, help="between two checkpoints (%(default)s)")


def chosen(options: argparse.Namespace, usual: TrainSettings) -> TrainSettings:
    """The settings that the options say.

    Raises:
        SystemExit: steps cannot be recorded on this device.
    """
    if options.recorded and torch.device(options.device).type != "cuda":
        raise SystemExit("Steps can be recorded on a GPU alone: add --device cuda, or leave --recorded out.")
    return replace(usual, **{f.name: getattr(options, f.name) for f in fields(TrainSettings) if f.name in options})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = build_parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    settings = chosen(options, TrainSettings())
    with Drawer(options.processes) as drawer:
        trainer = train(
            settings,
            options.out,
            options.device,
            options.minutes,
            options.stage,
            drawer,
            options.within,
            options.source,
        )
    if options.export:
        export(trainer, options.export)


if __name__ == "__main__":
    main()
