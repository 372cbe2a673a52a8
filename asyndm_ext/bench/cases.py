"""The networks that are measured: which shape, which latent, and what was cut so that a CPU finishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asyndm_ext.bench.dit import DiTShape, Flux, MMDiT
from asyndm_ext.bench.unet import UNet, UNetShape
from asyndm_ext.clock.noise import NoiseTable

Kind = Literal["eps", "v", "flow"]


@dataclass(frozen=True)
class Case:
    """A network of a real model's shape.

    Attributes:
        name: on the command line.
        kind: what the network predicts.
        build: makes the network; ``full``: of the model's whole depth.
        latent: side of the square latent at the model's own size. channels: of it.
        text: tokens of the text. context: their width. labels: width of the vector beside them, or 0.
        guided: two rows per image, without and with the prompt.
        depth: of the whole model; ``cut``: of the one that is measured on a CPU.
    """

    name: str
    kind: Kind
    build: Callable[[bool], nn.Module]
    latent: int
    channels: int
    text: int
    context: int
    labels: int
    guided: bool
    depth: str
    cut: str

    @property
    def transformer(self) -> bool:
        """Whether a token is two by two latent pixels."""
        return self.kind == "flow"


def _sd21(full: bool) -> nn.Module:
    return UNet(UNetShape(320, (1, 2, 4, 4), (1, 1, 1, 0), 2 if full else 1, context=1024))


def _sdxl(full: bool) -> nn.Module:
    depths, blocks = ((0, 2, 10), 2) if full else ((0, 1, 2), 1)
    return UNet(UNetShape(320, (1, 2, 4), depths, blocks, context=2048, labels=2816))


def _sd3(full: bool) -> nn.Module:
    return MMDiT(DiTShape(1536, 24, 24 if full else 2, context=4096, labels=2048))


def _flux(full: bool) -> nn.Module:
    depth, singles = (19, 38) if full else (1, 1)
    return Flux(DiTShape(3072, 24, depth, context=4096, labels=768, singles=singles, axes=(16, 56, 56)))


CASES = {
    case.name: case
    for case in (
        Case(
            "sd21",
            *("eps", _sd21, 64, 4, 77, 1024, 0, True),
            depth="2 ResBlocks a level",
            cut="1 ResBlock a level",
        ),
        Case(
            "sdxl",
            *("eps", _sdxl, 128, 4, 77, 2048, 2816, True),
            depth="2 ResBlocks a level, 0/2/10 transformer blocks in each attention",
            cut="1 ResBlock a level, 0/1/2 transformer blocks in each attention",
        ),
        Case(
            "sd3",
            *("flow", _sd3, 128, 16, 154, 4096, 2048, True),
            depth="24 joint blocks",
            cut="2 joint blocks",
        ),
        Case(
            "flux",
            *("flow", _flux, 128, 16, 256, 4096, 768, False),
            depth="19 double and 38 single blocks",
            cut="1 double and 1 single block",
        ),
    )
}


def normal(*shape: int, seed: int) -> Tensor:
    """Seeded normals on the CPU."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _made_on(case: Case, full: bool, device: torch.device) -> torch.device:
    """Where random weights are drawn. Those of a whole network take a CPU minutes, so on a GPU that has the room."""
    if device.type != "cuda":
        return device if device.type == "meta" else torch.device("cpu")
    with torch.device("meta"):
        size = sum(4 * weight.numel() for weight in case.build(full).parameters())
    free, _ = torch.cuda.mem_get_info(device)
    return device if 1.1 * size < free else torch.device("cpu")


def random_network(case: Case, full: bool, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The case's network with random weights, ready to sample."""
    torch.manual_seed(0)
    with torch.device(_made_on(case, full, device)):
        network = case.build(full)
    for name, weight in network.named_parameters():
        # Random weights attend to everything alike; a trained model does not.
        if any(part in name for part in ("to_q", "to_k", "qkv")):
            weight.data *= 2
    return network.to(device, dtype).requires_grad_(False).eval()


def sd_table() -> NoiseTable:
    """Stable Diffusion's noise levels."""
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    return NoiseTable.from_alphas_cumprod(torch.cumprod(1 - root**2, dim=0))


def sigmas(kind: Kind, table: NoiseTable, steps: int) -> Tensor:
    """Noise levels of a run, noisy to clean, ending at 0, float64."""
    share = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    if kind == "flow":
        return 3 * share / (1 + 2 * share)  # SD3's shift
    t = share[:-1] * (len(table.log_sigmas) - 1)
    return torch.cat([torch.exp(table.log_sigmas[t.round().long()]), torch.zeros(1, dtype=torch.float64)])


def texts(case: Case, images: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the network is told beside the latent: each image has a text of its own, the empty one comes first."""
    rows = 2 * images if case.guided else images
    # What several rows share is the same, as the empty prompt is.
    numbers = [*[0] * (rows - images), *range(1, images + 1)]
    told: dict[str, Any] = {"context": torch.stack([normal(case.text, case.context, seed=10 + n) for n in numbers])}
    if case.labels:
        told["y"] = torch.stack([normal(case.labels, seed=90 + n) for n in numbers])
    return {name: value.to(device, dtype) for name, value in told.items()}
