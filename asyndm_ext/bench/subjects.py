"""What is measured: a network with its texts, its starting noise, and the region whose pixels lag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asyndm_ext.bench.blobs import Blobs
from asyndm_ext.bench.cases import CASES, normal, random_network, sd_table, sigmas, texts
from asyndm_ext.bench.guided import Host, PixelModel
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.embedded.limits import GUIDANCE
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.region.regions import Region, Shape, region_for
from asyndm_ext.settings import Settings
from asyndm_ext.world.tokens import Tokenizer

EMBEDDED = "embedded"
NAMES = (EMBEDDED, *CASES)
STEPS = 20
_PROMPT, _OBJECTS = "a polar bear riding a bike", "polar bear, bike:0.4"
_COLUMNS = [[2], [5, 6]]  # of two objects, of one and of two tokens


class Attachable(Protocol):
    """A model with hooks: :class:`asyndm_ext.run.Model`, in use inside :meth:`attached`."""

    def attached(self) -> AbstractContextManager[Any]: ...

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor: ...

    def attention(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Subject:
    """One network at one batch size.

    Attributes:
        name, detail: what it is, for the reader.
        host: the guided model without AsynDM; ``model`` with.
        network: the module itself.
        columns: for each image, for each object, its tokens' columns.
        x: starting latent ``(B,C,H,W)``. sigmas: of the run, ending at 0.
        region: makes a run's region from the shape ``(B,1,H,W)``.
        text: tokens of the text.
        halvings: how often the latent was halved where a UNet's attention is looked at.
    """

    name: str
    detail: dict[str, Any]
    host: Host
    model: Attachable
    network: nn.Module
    columns: Sequence[Sequence[Sequence[int]]]
    x: Tensor
    sigmas: Tensor
    region: Callable[[Shape], Region]
    text: int
    halvings: int = 2

    @property
    def transformer(self) -> bool:
        return self.host.kind == "flow"

    @property
    def shape(self) -> Shape:
        """Of a map."""
        return (len(self.x), 1, self.x.shape[-2], self.x.shape[-1])


def random_subject(
    name: str, batch: int, full: bool, latent: int | None, device: torch.device, dtype: torch.dtype
) -> Subject:
    """A network of a real one's shape with random weights.

    Args:
        name: of :data:`CASES`.
        full: of the whole depth. latent: side; the model's own by default.
    """
    case = CASES[name]
    side = case.latent if latent is None else latent
    network = random_network(case, full, device, dtype)
    told = texts(case, batch, device, dtype)
    table = sd_table()
    host = Host(lambda x, t: network(x, t, **told), case.kind, table, 5.0 if case.guided else None, dtype)
    columns = [_COLUMNS] * batch
    levels = sigmas(case.kind, table, STEPS)
    return Subject(
        name,
        {
            "latent": f"{side}x{side}",
            "whole_latent": f"{case.latent}x{case.latent}",
            "depth": case.depth if full else case.cut,
            "whole_depth": case.depth,
        },
        host,
        PixelModel(host, network, columns),
        network,
        columns,
        (normal(batch, case.channels, side, side, seed=1) * float(levels[0])).to(device),
        levels,
        Blobs,
        case.text,
    )


def embedded_subject(batch: int, device: torch.device) -> Subject:
    """The model that comes with the package, its own objects, its own size."""
    from asyndm_ext.embedded.job import object_columns
    from asyndm_ext.world.model import load_world

    world = load_world(device=device)
    side = 128 // world.latent_factor
    table = NoiseTable.from_alphas_cumprod(world.alphas_cumprod)
    cond, uncond = (world.encode_prompt([text] * batch) for text in (_PROMPT, ""))
    both = torch.cat([uncond, cond])
    host = Host(lambda x, t: world.unet(x, t, encoder_hidden_states=both).sample, "v", table, GUIDANCE, torch.float32)
    objects = parse_objects(_OBJECTS)
    columns = [object_columns(Tokenizer(), _PROMPT, objects)] * batch
    settings = Settings(enabled=True, objects=objects)
    strengths = [settings.strength if spec.strength is None else spec.strength for spec in objects]
    levels = sigmas("v", table, STEPS)
    return Subject(
        EMBEDDED,
        {"latent": f"{side}x{side}", "whole_latent": f"{side}x{side}", "depth": "all", "whole_depth": "all"},
        host,
        GuidedUNet(
            world.unet, cond, uncond, GUIDANCE, table, world.prediction_type, "sigma", columns, world.attention_halvings
        ),
        world.unet,
        columns,
        (normal(batch, world.latent_channels, side, side, seed=1) * float(levels[0])).to(device),
        levels,
        lambda shape: region_for(settings, shape, strengths),
        cond.shape[1],
        world.attention_halvings,
    )
