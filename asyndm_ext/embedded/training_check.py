"""Look at the embedded model, and count: plain sampling, a sheet of pictures, and how often they are what was asked.

    python -m asyndm_ext.embedded.training_check --out sheet.png [--checkpoint training/checkpoint.pt]

The sampler here is the plain DDIM baseline in a few lines. It exists to judge a training; pictures
with asynchronous denoising are made elsewhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from asyndm_ext.embedded.judge import Verdict, judge
from asyndm_ext.embedded.model import WEIGHTS, TinyModel, load_tiny
from asyndm_ext.embedded.sampling import GUIDANCE
from asyndm_ext.embedded.scenes import COLOURS, random_text

SHEET_PROMPTS: tuple[str, ...] = (
    "a red circle",
    "a blue star on a yellow background",
    "two green stars",
    "three yellow triangles",
    "a red circle and a blue square",
    "a yellow star and a purple triangle",
    "a black square and a white circle",
    "an orange triangle and a green circle on a white background",
    "a red circle to the left of a blue square",
    "a blue square to the left of a red circle",
    "a green triangle above a yellow star",
    "a purple circle below an orange square",
    "a white star to the right of a black triangle",
    "three yellow triangles and a red square",
    "a red square and a green circle and a blue star",
    "two white circles on a blue background",
)


@torch.no_grad()
def sample(
    model: TinyModel,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    steps: int = 24,
    guidance: float = GUIDANCE,
    height: int = 128,
    width: int = 128,
) -> Tensor:
    """Pictures (B, 3, height, width) in [0, 1] by DDIM (eta 0); picture ``i`` depends on ``seed + i`` alone.

    Times are evenly spaced and start at the last one; the last step goes to the clean latents.
    """
    shape = (model.latent_channels, height // model.latent_factor, width // model.latent_factor)
    generators = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
    latents = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(model.device)
    context = torch.cat([model.encode_prompt([""] * len(prompts)), model.encode_prompt(prompts)])
    times = torch.linspace(model.config.train_timesteps - 1, 0, steps + 1).round().long()[:-1]
    alphas = [*model.alphas_cumprod[times].tolist(), 1.0]
    for time, alpha, following in zip(times, alphas, alphas[1:], strict=False):
        without, given = model.unet(torch.cat([latents] * 2), time, encoder_hidden_states=context).sample.chunk(2)
        v = without + guidance * (given - without)
        clean = alpha**0.5 * latents - (1 - alpha) ** 0.5 * v
        noise = (1 - alpha) ** 0.5 * latents + alpha**0.5 * v
        latents = following**0.5 * clean + (1 - following) ** 0.5 * noise
    return model.decode(latents)


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [0, 1] to (B, H, W, 3) uint8."""
    return (pictures.permute(0, 2, 3, 1).cpu() * 255).round().to(torch.uint8).numpy()


def sheet(images: NDArray[np.uint8], columns: int = 4) -> Image.Image:
    """Pictures (B, H, W, 3) as one, in rows of ``columns`` (B is a multiple of it)."""
    count, height, width, channels = images.shape
    grid = images.reshape(count // columns, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(np.ascontiguousarray(grid.reshape(-1, columns * width, channels)))


def colour_shares(image: NDArray[np.uint8], tolerance: float = 60.0) -> dict[str, float]:
    """Share of pixels (H, W, 3) within ``tolerance`` (8-bit RGB distance) of each named colour and nearest to it."""
    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    distance = np.linalg.norm(image.reshape(-1, 1, 3).astype(np.float32) - palette, axis=-1)
    nearest = np.where(distance.min(axis=1) <= tolerance, distance.argmin(axis=1), len(palette))
    counts = np.bincount(nearest, minlength=len(palette) + 1)
    return {colour: float(count) / len(nearest) for colour, count in zip(COLOURS, counts, strict=False)}


def score(model: TinyModel, number: int = 64, *, seed: int = 1, batch: int = 16, **how: Any) -> dict[str, float]:
    """Judge pictures of ``number`` random prompts: the share of them, in [0, 1], for which each thing is right.

    ``relation`` counts only the prompts that have one, ``ground`` only those that name it; ``how`` goes to
    :func:`sample`.
    """
    rng = np.random.default_rng(seed)
    texts = [random_text(rng) for _ in range(number)]
    verdicts: list[Verdict] = []
    for start in range(0, number, batch):
        some = texts[start : start + batch]
        images = to_bytes(sample(model, [str(text) for text in some], seed=seed + start, **how))
        verdicts += [judge(image, text) for image, text in zip(images, some, strict=True)]
    pairs = list(zip(texts, verdicts, strict=True))
    return {
        "exact": float(np.mean([verdict.exact for verdict in verdicts])),
        "number": float(np.mean([verdict.number for verdict in verdicts])),
        "colours": float(np.mean([verdict.colours for verdict in verdicts])),
        "objects": float(np.mean([verdict.objects for verdict in verdicts])),
        "relation": float(np.mean([verdict.relation for text, verdict in pairs if text.relation])),
        "ground": float(np.mean([verdict.ground for text, verdict in pairs if text.ground])),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--checkpoint", type=Path, help="look at the averaged weights of a training under way instead")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", type=int, default=0, metavar="N", help="also judge N random prompts")
    options = parser.parse_args(argv)

    if options.checkpoint:
        model = TinyModel()
        model.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True)["averaged"])
        model.requires_grad_(False).eval()
    else:
        model = load_tiny(options.weights)
    pictures = sample(model, SHEET_PROMPTS, seed=options.seed, steps=options.steps, guidance=options.guidance)
    sheet(to_bytes(pictures)).save(options.out)
    if options.score:
        shares = score(model, options.score, steps=options.steps, guidance=options.guidance)
        print(f"right, of {options.score} prompts:", ", ".join(f"{what} {share:.2f}" for what, share in shares.items()))


if __name__ == "__main__":
    main()
