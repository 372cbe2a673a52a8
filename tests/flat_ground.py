"""The little world's scenes on nothing: does a ground that tells an object something make a difference?

    python -m tests.flat_ground train flat
    python -m tests.flat_ground evaluate --weights flat/weights --kind unusual --prompts 100 --out on-nothing
    python -m tests.flat_ground evaluate --usual-world --kind unusual --prompts 100 --out on-grounds

``train FOLDER`` trains the package's network on in a world without horizon, texture, light, shadows and covered feet:
every scene stands on :data:`GREY` (an hour of one core; started again it goes on). Captions stay as they are, so they
lie about animal and thing as often. ``evaluate`` is the product's command with its options in that world, with prompts
that name no ground; with ``--usual-world`` only the prompts are changed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from asyndm_ext.evaluate import prompts as asked
from asyndm_ext.evaluate.main import main as evaluate
from asyndm_ext.world import scenes, train
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.model import WEIGHTS
from asyndm_ext.world.prompts import text_of_kind
from asyndm_ext.world.trainers import TrainSettings
from asyndm_ext.world.words import SceneText

GREY = (168, 178, 186)
TRAINING = TrainSettings(steps=750, learning_rate=3e-4, warmup=50, ema=0.99, pool_blocks=64, pool_refresh=3, seed=26)
"""From weights that know animals and things: gentler than from chance, and the averages are of the last steps."""


def _nothing(
    content: scenes.Content, horizon: float, side: float, size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    return np.tile(np.array(GREY, np.float32), (size, size, 1))


def _without_ground(kind: str, rng: np.random.Generator) -> SceneText:
    return replace(text_of_kind(kind, rng), ground=None, light=None)


@contextmanager
def flat_world() -> Iterator[None]:
    """Scenes are drawn on :data:`GREY` in this process."""
    grounds = {name: replace(ground, feet="") for name, ground in GROUNDS.items()}
    lights = {name: replace(LIGHTS["day"], shadow=0.0) for name in LIGHTS}
    with (
        mock.patch.dict(GROUNDS, grounds),
        mock.patch.dict(LIGHTS, lights),
        mock.patch.object(scenes, "_backdrop", _nothing),
    ):
        yield


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    with flat_world():
        trainer = train.train(TRAINING, folder, "cpu", 4.0, "diffusion", source=WEIGHTS)
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    train.export(trainer, weights)
    shutil.copy(WEIGHTS / "judge.safetensors", weights)


def main(argv: list[str]) -> int:
    """Command line: see the module's text."""
    if argv[:1] == ["train"] and len(argv) == 2:
        _train(Path(argv[1]))
        return 0
    if argv[:1] != ["evaluate"]:
        print(__doc__)
        return 2
    options = [option for option in argv[1:] if option != "--usual-world"]
    with mock.patch.object(asked, "text_of_kind", _without_ground):
        if len(options) < len(argv) - 1:
            return evaluate(options)
        with flat_world():
            return evaluate(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
