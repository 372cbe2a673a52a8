"""Does noise stay behind where pixels are on time (the paper's Figure 8)? Fine detail of little-world pictures over
strengths, with and without lag, from the same noise.

    python -m tests.grain --prompts 32

prints per curve and strength the fine detail (Immerkaer 1996: the median of what a mask that cancels slopes
leaves) of the pixels that never lagged and of those that did, in the latent and in the picture, as a multiple of
the plain picture's in the same pixels: the mean over pictures of its logarithm, with a bootstrap interval, and the
largest one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.job import Job, automatic_objects
from asyndm_ext.embedded.limits import GUIDANCE
from asyndm_ext.evaluate.statistics import Bootstrap
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.prompts import text_of_kind

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CURVES = ("piecewise linear", "quadratic")
FEW = 24
"""Pixels; fewer say nothing about their noise."""
BATCH = 16


def fine(of: Tensor) -> Tensor:
    """``(B,C,H,W)`` to how much fine detail each pixel has, ``(B,H,W)``."""
    mask = of.new_tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    channels = of.shape[1]
    around = F.pad(of, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(around, mask.expand(channels, 1, 3, 3), groups=channels).abs().mean(1)


def drawn(model: WorldModel, jobs: Sequence[Job], eta: float | None, lag: bool) -> tuple[Tensor, Tensor]:
    """Finished latents, and how slow each pixel was at most, ``(B,h,w)``."""
    latents, slow = [], []
    for start in range(0, len(jobs), BATCH):
        part, records = jobs[start : start + BATCH], list[StepRecord]()
        made = run_batch(model, part, "asyndm" if lag else "plain", eta=eta, watch=records.append)
        latents.append(made.latents)
        lags = [record.level.double() / record.nominal - 1 for record in records if record.nominal > 0]
        slow.append(torch.stack(lags).amax(0).squeeze(1))
    return torch.cat(latents), torch.cat(slow)


def ratios(own: Tensor, plain: Tensor, where: Tensor) -> np.ndarray:
    """Logarithm of the median fine detail over the plain one's, per picture; NaN: too few pixels."""
    found = []
    for a, b, there in zip(own, plain, where, strict=True):
        found.append(math.log(a[there].median() / b[there].median()) if int(there.sum()) >= FEW else math.nan)
    return np.array(found)


def alone(latents: Tensor, plain: Tensor, near: Tensor, lagged: Tensor) -> str:
    """How often a picture with lag is told from a plain one by its latent alone, .5 is by chance: by the detail of the
    pixels on time, and by how much more it is than the slow ones'."""

    def measures(of: Tensor) -> np.ndarray:
        rows = []
        for one, there, late in zip(of, ~near, lagged, strict=True):
            if min(int(there.sum()), int(late.sum())) >= FEW:
                on_time, slow = float(one[there].median()), float(one[late].median())
                rows.append((on_time, on_time / slow))
        return np.array(rows)

    own, reference = measures(latents), measures(plain)
    told = [(a[:, None] > b[None]).mean() + (a[:, None] == b[None]).mean() / 2 for a, b in zip(own.T, reference.T)]  # noqa: B905
    return f"told from plain {told[0]:.2f}, against the slow {told[1]:.2f}"


def told(logs: np.ndarray) -> str:
    logs = logs[~np.isnan(logs)]
    if len(logs) < 20:
        return f"{len(logs)} pictures"
    low, high = Bootstrap(len(logs)).interval(logs)
    return (
        f"{math.exp(logs.mean()):5.2f} ({math.exp(low):4.2f} to {math.exp(high):4.2f}; max {math.exp(logs.max()):4.1f})"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--solver", default="Euler")
    parser.add_argument("--eta", type=float)
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    options = parser.parse_args(argv)
    model = load_world()

    def jobs(**own: object) -> list[Job]:
        made = []
        for number in range(options.prompts):
            text = str(text_of_kind("unusual", np.random.default_rng([options.seed, number])))
            objects = tuple(map(ObjectSpec, automatic_objects(text)))
            settings = Settings(enabled=True, objects=objects, **own)  # type: ignore[arg-type]
            made.append(Job(text, 10_000 + number, settings, options.steps, options.solver, guidance=GUIDANCE))
        return made

    def looked(latents: Tensor) -> tuple[Tensor, Tensor]:
        return fine(latents.float()), fine(model.decode(latents).float())

    plain_latents, _ = drawn(model, jobs(), options.eta, lag=False)
    plain = looked(plain_latents)
    print(f"{options.prompts} pictures, {options.solver}, {options.steps} steps, eta {options.eta}")
    for curve in CURVES:
        for strength in options.strengths:
            latents, slow = drawn(model, jobs(curve=curve, strength=strength), options.eta, lag=True)
            parts = []
            for name, own, reference in zip(("latent", "picture"), looked(latents), plain, strict=True):
                size = own.shape[-2:]
                lagged = F.interpolate((slow > 0.02).float()[:, None], size, mode="nearest")[:, 0] > 0
                # A pixel beside a slow one sees its detail through the mask.
                near = F.max_pool2d(lagged.float()[:, None], 3, 1, 1)[:, 0] > 0
                on_time, late = (told(ratios(own, reference, where)) for where in (~near, lagged))
                parts.append(f"{name}: on time {on_time}, slow {late}")
                if name == "latent":
                    parts.append(alone(own, reference, near, lagged))
            print(f"  {curve:<17}{strength:4.1f}  " + "   ".join(parts), flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
