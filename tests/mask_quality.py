"""How soon the embedded model's attention knows where the objects will be: its masks against the finished pictures.

    python -m tests.mask_quality --prompts 128

prints, for every step, how much of the picture is slow, how much of that shows an object in the end, and how much of
the finished objects is slow. Plain pictures of two-object prompts; AsynDM only looks, nothing lags.

    python -m tests.mask_quality --prompts 512 --painted

holds pictures with AsynDM against plain ones, once with its own masks and once with the objects of the finished plain
picture painted in, at the latent's full resolution and grown by a pixel, from the first step on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.judge import ground_colour, judge
from asyndm_ext.embedded.model import TinyModel, load_tiny
from asyndm_ext.embedded.sampling import Job, automatic_objects
from asyndm_ext.embedded.scenes import SceneText, text_of_kind
from asyndm_ext.embedded.vocabulary import Tokenizer
from asyndm_ext.objects import ObjectSpec
from asyndm_ext.regions import FixedRegion
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings

DIFFERENT = 40.0  # as in the judge
LEAST = 0.001  # a strength at which masks are made and nothing is seen to lag


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128, help="how many (%(default)s)")
    parser.add_argument("--kind", default="two", help="of prompts (%(default)s)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threshold", type=float, default=1.0)
    parser.add_argument("--strength", type=float, default=0.7, help="with --painted (%(default)s)")
    parser.add_argument("--painted", action="store_true", help="compare with painted masks")
    arguments = parser.parse_args(argv)
    model, rng = load_tiny(), np.random.default_rng(1)
    texts = [text_of_kind(arguments.kind, rng) for _ in range(arguments.prompts)]
    compare(model, texts, arguments) if arguments.painted else look(model, texts, arguments)


def look(model: TinyModel, texts: Sequence[SceneText], arguments: argparse.Namespace) -> None:
    slow, objects = [], []
    for start in range(0, len(texts), 16):
        jobs = [job(str(text), start + i, LEAST, arguments) for i, text in enumerate(texts[start : start + 16])]
        records: list[StepRecord] = []
        batch = run_batch(model, jobs, "asyndm", watch=records.append)
        slow.append(torch.stack([record.strength[:, 0] > 0 for record in records]))
        objects.append(where_objects_are(drawn(model, batch.latents), model.latent_factor))
    table(torch.cat(slow, dim=1), torch.cat(objects))


def compare(model: TinyModel, texts: Sequence[SceneText], arguments: argparse.Namespace) -> None:
    right: dict[str, list[bool]] = {}
    for start in range(0, len(texts), 16):
        some = texts[start : start + 16]
        jobs = [job(str(text), start + i, arguments.strength, arguments) for i, text in enumerate(some)]
        plain = drawn(model, run_batch(model, jobs, "plain").latents)
        own = drawn(model, run_batch(model, jobs, "asyndm").latents)
        mask = functional.max_pool2d(where_objects_are(plain, model.latent_factor).double(), 3, 1, 1)
        painted = FixedRegion(mask.unsqueeze(1) * arguments.strength)
        with patch("asyndm_ext.embedded.batch.variant_region", return_value=painted):
            best = drawn(model, run_batch(model, jobs, "asyndm").latents)
        for name, pictures in (("plain", plain), ("own masks", own), ("painted", best)):
            verdicts = [judge(picture, text) for picture, text in zip(pictures, some, strict=True)]
            for what in ("exact", "number", "colours"):
                right.setdefault(f"{name}: {what}", []).extend(getattr(verdict, what) for verdict in verdicts)
    for name, found in right.items():
        before = np.array(right[f"plain: {name.partition(': ')[2]}"])
        now = np.array(found)
        better, worse = int((now & ~before).sum()), int((before & ~now).sum())
        print(f"{name:<20} {now.mean():>6.1%}   better {better:>3}   worse {worse:>3}")


def job(text: str, seed: int, strength: float, arguments: argparse.Namespace) -> Job:
    names = automatic_objects(Tokenizer().words(text))
    settings = {"objects": [ObjectSpec(name) for name in names], "strength": strength}
    return Job(text, seed, Settings.from_dict({**settings, "threshold": arguments.threshold}), steps=arguments.steps)


def drawn(model: TinyModel, latents: Tensor) -> NDArray[np.uint8]:
    """Pictures ``(B,H,W,3)``."""
    return (model.decode(latents).permute(0, 2, 3, 1) * 255).round().byte().numpy()


def where_objects_are(pictures: NDArray[np.uint8], factor: int) -> Tensor:
    """Where finished pictures show objects, ``(B,h,w)`` at the latent's size."""
    return torch.stack([object_cells(picture, factor) for picture in pictures])


def object_cells(picture: NDArray[np.uint8], factor: int) -> Tensor:
    away = np.linalg.norm(picture.astype(np.float32) - ground_colour(picture), axis=-1) > DIFFERENT
    return torch.from_numpy(away).float().unfold(0, factor, factor).unfold(1, factor, factor).mean(dim=(-2, -1)) >= 0.5


def table(slow: Tensor, objects: Tensor) -> None:
    """``slow`` ``(steps,B,h,w)``, ``objects`` ``(B,h,w)``."""
    print(f"{slow.shape[1]} pictures; objects cover {objects.double().mean():.1%} of them in the end")
    print("step  slow   of it objects   of the objects slow")
    for step, now in enumerate(slow):
        both = (now & objects).double().sum()
        shares = now.double().mean(), both / now.sum(), both / objects.sum()
        print(f"{step + 1:>4} {shares[0]:>6.1%} {shares[1]:>14.1%} {shares[2]:>19.1%}")


if __name__ == "__main__":
    main()
