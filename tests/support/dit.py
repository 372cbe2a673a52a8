"""The stand-in diffusion transformers behind one signature, and their naive per-token counterparts.

The naive ones compute a modulation for every single token, with code of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.transformers import layout_of
from asyndm_ext.model.transformers.layout import Layout
from support import anima, chroma, flux, flux2, mmdit, nextdit, qwen_image
from support.naive import naive_flux, naive_mmdit

TEXT_TOKENS = 7


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Kind:
    """What tests have to know of a stand-in.

    Attributes:
        make, arguments: the network.
        naive: its answer, computed token by token.
        layers: which make modulations once in a call, and the time embedding.
        gated: a module of its second block whose output is gated.
        inner: a module in the middle of the network.
        modulations: how many are applied to image tokens.
        attentions: how many of the picture to the text.
        text: tokens of the text before the picture's, where those attend.
        keys: whether an attention with so many keys, for so many tokens of the picture, is one of these.
        blocks: those that a host can leave out, if it can.
        takes: whether it takes the sigma, references, frames.
    """

    make: Callable[..., nn.Module]
    naive: Callable[..., Tensor]
    layers: Callable[[Any], list[nn.Module]]
    gated: Callable[[Any], nn.Module]
    inner: Callable[[Any], nn.Module]
    modulations: Callable[[Any], int]
    attentions: Callable[[Any], int]
    arguments: dict[str, Any] = field(default_factory=dict)
    text: int = TEXT_TOKENS
    keys: Callable[[int, int], bool] = lambda keys, tokens: True
    blocks: Callable[[Any], nn.ModuleList] | None = None
    patch: int = 2
    sigma: bool = True
    references: bool = False
    frames: bool = False


def _adaln(*layers: Callable[[Any], nn.Module]) -> Callable[[Any], list[nn.Module]]:
    return lambda net: [layer(net) for layer in layers]


def _last(net: Any) -> nn.Module:
    return net.final_layer.adaLN_modulation[-1]


def _of_sd3(**arguments: bool) -> Kind:
    return Kind(
        mmdit.MMDiT,
        lambda net, *args: naive_mmdit(net, *args[:-1]),
        _adaln(lambda net: net.joint_blocks[0].x_block.adaLN_modulation[-1], _last, lambda net: net.t_embedder.mlp),
        gated=lambda net: net.joint_blocks[1].x_block.mlp,
        inner=lambda net: net.joint_blocks[1].x_block.attn.qkv,
        modulations=lambda net: 1 + len(net.joint_blocks),
        attentions=lambda net: len(net.joint_blocks),
        keys=lambda keys, tokens: keys > tokens,
        blocks=lambda net: net.joint_blocks,
        arguments=arguments,
        sigma=False,
    )


def _of_flux(make: Callable[..., nn.Module], layers: Callable[[Any], list[nn.Module]], **others: Any) -> Kind:
    return Kind(
        make,
        naive_flux,
        layers,
        gated=lambda net: net.double_blocks[1].img_mlp,
        inner=lambda net: net.double_blocks[1].txt_attn.qkv,
        attentions=lambda net: len(net.double_blocks) + len(net.single_blocks),
        references=True,
        **{"modulations": lambda net: 1 + len(net.double_blocks) + len(net.single_blocks), **others},
    )


def _of_nextdit(z_image: bool) -> Kind:
    return Kind(
        nextdit.NextDiT,
        nextdit.naive,
        _adaln(
            lambda net: net.noise_refiner[0].adaLN_modulation[-1],
            lambda net: net.layers[1].adaLN_modulation[-1],
            _last,
            lambda net: net.t_embedder.mlp,
        ),
        gated=lambda net: net.layers[1].ffn_norm2,
        inner=lambda net: net.layers[1].attention.qkv,
        modulations=lambda net: 1 + len(net.noise_refiner) + len(net.layers),
        attentions=lambda net: len(net.layers),
        arguments={"z_image": z_image},
        text=8 if z_image else TEXT_TOKENS,
        keys=lambda keys, tokens: keys > TEXT_TOKENS + tokens - 1 and keys > -(-tokens // 8) * 8,
        blocks=lambda net: net.layers,
    )


_FLUX = _adaln(
    lambda net: net.double_blocks[0].img_mod.lin,
    lambda net: net.single_blocks[0].modulation.lin,
    _last,
    lambda net: net.time_in,
)
_FLUX2 = _adaln(
    lambda net: net.double_stream_modulation_img.lin,
    lambda net: net.single_stream_modulation.lin,
    _last,
    lambda net: net.time_in,
)
_CHROMA = _adaln(lambda net: net.distilled_guidance_layer)

KINDS = {
    "sd3": _of_sd3(),
    "sd3.5": _of_sd3(dual=True, normed=True),
    "flux": _of_flux(flux.Flux, _FLUX, blocks=lambda net: net.double_blocks),
    "flux objects": _of_flux(flux.Flux, _FLUX, arguments={"flat": False}),
    "flux in place": _of_flux(flux.Flux, _FLUX, arguments={"in_place": True}),
    "chroma": _of_flux(chroma.Chroma, _CHROMA),
    "chroma cut": _of_flux(chroma.Chroma, _CHROMA, arguments={"spare": 15}),
    "flux2": _of_flux(flux2.Flux2, _FLUX2, patch=1, modulations=lambda net: 3),
    "z-image": _of_nextdit(z_image=True),
    "lumina 2": _of_nextdit(z_image=False),
    "qwen-image": Kind(
        qwen_image.QwenImage,
        qwen_image.naive,
        _adaln(
            lambda net: net.transformer_blocks[0].img_mod[-1],
            lambda net: net.norm_out.linear,
            lambda net: net.time_text_embed.timestep_embedder,
        ),
        gated=lambda net: net.transformer_blocks[1].img_mlp,
        inner=lambda net: net.transformer_blocks[1].attn.add_q_proj,
        modulations=lambda net: 1 + len(net.transformer_blocks),
        attentions=lambda net: len(net.transformer_blocks),
        blocks=lambda net: net.transformer_blocks,
        references=True,
        frames=True,
    ),
    "anima": Kind(
        anima.Anima,
        anima.naive,
        _adaln(
            lambda net: net.blocks[1].adaln_modulation_mlp[-1],
            lambda net: net.final_layer.adaln_modulation[-1],
            lambda net: net.t_embedder[1],
        ),
        gated=lambda net: net.blocks[1].mlp,
        inner=lambda net: net.blocks[1].cross_attn.q_proj,
        modulations=lambda net: 1 + 3 * len(net.blocks),
        attentions=lambda net: len(net.blocks),
        text=0,
        keys=lambda keys, tokens: keys == TEXT_TOKENS,
        blocks=lambda net: net.blocks,
        frames=True,
    ),
}
NAMES = list(KINDS)


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    made = KINDS[name].make(**KINDS[name].arguments)
    # Random weights attend to everything alike and modulate by little, which no test could tell apart.
    strong = ("qkv", "linear1", "mod", "adaLN", "distilled_guidance_layer", "to_q", "to_k", "add_k", "q_proj", "k_proj")
    for key, weight in made.named_parameters():
        if any(part in key for part in strong):
            weight.data *= 2
    return made.eval().requires_grad_(False)


class DiT:
    """One of the networks; t in thousandths, whatever the network takes."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.kind = name, KINDS[name]
        self.net: Any = network(name)
        if dtype != torch.float32:
            self.net = self.kind.make(**self.kind.arguments).to(dtype).eval().requires_grad_(False)
            self.net.load_state_dict(network(name).state_dict())
        self.dtype = dtype

    @property
    def layout(self) -> Layout:
        found = layout_of(self.net)
        assert found is not None
        return found

    @property
    def modulations(self) -> int:
        """Of image tokens, that are applied in a call."""
        return self.kind.modulations(self.net)

    @property
    def attentions(self) -> int:
        """Of the picture to the text."""
        return self.kind.attentions(self.net)

    def texts(self, prompts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pooled and per-token text of each row."""
        pooled = torch.stack([normal(10, seed=100 + p) for p in prompts])
        tokens = torch.stack([normal(TEXT_TOKENS, 12, seed=200 + p) for p in prompts])
        return pooled.to(self.dtype), tokens.to(self.dtype)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens of a latent."""
        return -(-size[0] // self.kind.patch), -(-size[1] // self.kind.patch)

    def of_tokens(self, maps: Tensor) -> Tensor:
        """``(N,1,H,W)`` -> ``(N, L)``: the first pixel of every patch, row by row."""
        return first_of_patches(maps, self.kind.patch)

    def __call__(
        self, x: Tensor, t: float | Tensor, prompts: Sequence[int] = (), reference: Tensor | None = None
    ) -> Tensor:
        y, context = self.texts(prompts or range(len(x)))
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        more = (reference,) if reference is not None else ()
        x = x.unsqueeze(2) if self.kind.frames else x
        out = self.net(x.to(self.dtype), t / 1000 if self.kind.sigma else t, y, context, *more)
        return out[:, :, 0] if self.kind.frames else out

    def naive(
        self, x: Tensor, t: float, tokens: Tensor, prompts: Sequence[int] = (), reference: Tensor | None = None
    ) -> Tensor:
        """``t`` for text and reference, ``tokens`` ``(N, L)`` the timestep of each image token."""
        y, context = self.texts(prompts or range(len(x)))
        scalar = torch.full((len(x),), float(t))
        x = x.unsqueeze(2) if self.kind.frames else x
        out = self.kind.naive(self.net, x, scalar, tokens, y, context, reference)
        return out[:, :, 0] if self.kind.frames else out


def first_of_patches(maps: Tensor, patch: int = 2) -> Tensor:
    """See :meth:`DiT.of_tokens`."""
    return maps[:, 0, ::patch, ::patch].flatten(1)
