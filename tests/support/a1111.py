"""AUTOMATIC1111 as far as a denoiser of its needs it: stand-ins for its modules, and a job with a network whose answer
for a pixel depends on that pixel alone."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from support.kdiffusion import k_diffusion
from support.ldm_unet import sinusoid

CHANNELS, WIDTH = 4, 16


class Block(nn.Module):
    """As latent diffusion's, of single pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.SiLU(), nn.Conv2d(CHANNELS, CHANNELS, 1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, CHANNELS))


class PixelNetwork(nn.Module):
    """A UNet of latent diffusion by its names; a pixel's answer depends on that pixel, its timestep and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        emb = self.time_embed(sinusoid(timesteps, WIDTH))
        for block in self.blocks:
            # As the real one: the features come before the projection is added.
            h = block.in_layers(x)
            shift = block.emb_layers(emb)
            while shift.ndim < h.ndim:
                shift = shift.unsqueeze(-1)
            x = x + torch.tanh(h + shift)
        return x * context.mean(dim=(1, 2)).view(-1, 1, 1, 1)


class Checkpoint:
    """The host's loaded model."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.model = SimpleNamespace(diffusion_model=PixelNetwork().requires_grad_(False))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0).float()
        self.device = torch.device("cpu")

    def apply_model(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.model.diffusion_model(x, t, context=cond)


class TimestepsDenoiser(nn.Module):
    """eps, in the variance-preserving space."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.inner_model.apply_model(x, t, cond)


class TimestepsVDenoiser(TimestepsDenoiser):
    """eps of a model that answers v."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alpha = self.inner_model.alphas_cumprod[t.to(torch.int)].view(-1, 1, 1, 1)
        return alpha.sqrt() * super().forward(x, t, cond) + (1 - alpha).sqrt() * x


class Unused:
    """A kind of model that these tests have not."""


Edit = Callable[[Any], None]


class Denoiser:
    """The host's CFG denoiser: rows with the prompt, then rows without, and what others do to them on the way.

    Args:
        wrap: the innermost model. edits: called with an object that has ``x`` and ``sigma``.
        rows_at_once: or those with the prompt first. uncond: or only those with the prompt.
        exchanged: those with the prompt come in the reverse order, and are put back afterwards.
    """

    def __init__(
        self, wrap: Any, edits: list[Edit], rows_at_once: bool = True, uncond: bool = True, exchanged: bool = False
    ) -> None:
        self.wrap, self.edits, self.rows_at_once, self.uncond = wrap, edits, rows_at_once, uncond
        self.exchanged = exchanged
        self.step = 0
        self.cond_scale_miltiplier, self.need_last_noise_uncond, self.last_noise_uncond = 1.0, False, None

    @property
    def inner_model(self) -> Any:
        return self.wrap

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        return x_out

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, text: Tensor) -> Tensor:
        params = SimpleNamespace(x=torch.cat([x, x]), sigma=torch.cat([sigma, sigma]))
        for edit in self.edits:
            edit(params)
        size = len(x)
        order = torch.arange(2 * size)
        if self.exchanged:
            order = torch.cat([order[:size].flip(0), order[size:]])
            params.x, params.sigma, text = params.x[order], params.sigma[order], text[order]
        if not self.uncond:
            answer = self.inner_model(params.x[:size], params.sigma[:size], cond=text[:size])
        elif self.rows_at_once:
            answer = self.inner_model(params.x, params.sigma, cond=text)
        else:
            halves = [(params.x[i : i + size], params.sigma[i : i + size], text[i : i + size]) for i in (0, size)]
            answer = torch.cat([self.inner_model(a, s, cond=c) for a, s, c in halves])
        self.step += 1
        rows = torch.cat([answer[order[: len(answer)]][:size], answer[-size:]])
        return self.combine_denoised(rows, [[(image, 1.0)] for image in range(size)], text[size:], 3.0)

    def combine_denoised(self, x_out: Tensor, conds_list: Any, uncond: Tensor, cond_scale: float) -> Tensor:
        without = x_out[-len(uncond) :]
        prompted = x_out[[conds[0][0] for conds in conds_list]]
        return without + cond_scale * (prompted - without)


@contextmanager
def inside(stand_ins: Mapping[str, dict[str, Any]], wanted: str) -> Iterator[Any]:
    """Within this block the modules of a host are there, by their names, and the module of ours that needs them."""
    ours = {name for name in sys.modules if name.startswith("asyndm_ext.hosts.")}
    before = {name: sys.modules.get(name) for name in (*stand_ins, *ours)}
    for name in ours:
        del sys.modules[name]
    for name, members in stand_ins.items():
        module = sys.modules[name] = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update({key: value for key, value in members.items() if not key.startswith("__")})
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield import_module(wanted)
    finally:
        for name in [name for name in sys.modules if name.startswith("asyndm_ext.hosts.")]:
            del sys.modules[name]
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def host() -> AbstractContextManager[Any]:
    """Within this block AsynDM's module for the host's denoisers is there, as it would be inside the host."""
    _, external = k_diffusion()
    callbacks = {"callbacks_cfg_denoiser": [object()]}
    stand_ins: dict[str, dict[str, Any]] = {
        "k_diffusion": {"external": external},
        "k_diffusion.external": vars(external),
        "modules": {},
        "modules.sd_samplers_lcm": {"LCMCompVisDenoiser": Unused},
        "modules.sd_samplers_timesteps": {
            "CompVisTimestepsDenoiser": TimestepsDenoiser,
            "CompVisTimestepsVDenoiser": TimestepsVDenoiser,
        },
        "modules.sd_unet": {"current_unet": None},
        "modules.sd_samplers": {},
        "modules.prompt_parser": {},
        "modules.shared": {"opts": SimpleNamespace()},
        "modules.script_callbacks": {"callback_map": callbacks},
        "modules.models": {},
        "modules.models.sd3": {},
        "modules.models.sd3.sd3_model": {"SD3Denoiser": Unused},
    }
    return inside(stand_ins, "asyndm_ext.hosts.a1111.denoiser")
