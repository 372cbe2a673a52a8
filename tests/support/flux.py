"""A small Flux with the module layout of the real one, random weights.

Names and calls of the parts are what per-token conditioning and attention capture rely on: ``time_in``,
``pe_embedder``, ``double_blocks`` with ``img_mod.lin``, ``img_attn.qkv``, ``img_attn.norm``, ``img_attn.proj``,
``img_mlp`` and their ``txt_`` twins, ``single_blocks`` with ``modulation.lin``, ``linear1``, ``norm``, ``linear2``,
``final_layer``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyndm_ext.bench import dit
from asyndm_ext.bench.dit import Embedder, FluxAttention, QKNorm, gelu_mlp, turned
from support.ldm_unet import sinusoid
from support.mmdit import SINUSOID, RMSNorm

__all__ = ["Embedder", "Flux", "Modulated", "Modulation", "Positions", "attend", "mlp", "turned"]


class Positions(dit.Positions):
    """Of so small a picture, whose angles have to be large to tell its tokens apart."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__(axes, theta=100.0)


def mlp(width: int) -> nn.Sequential:
    return gelu_mlp(width, hidden=2)


def attend(q: Tensor, k: Tensor, v: Tensor, pe: Tensor | None) -> Tensor:
    """``(N, heads, L, d)`` -> ``(N, L, heads*d)``."""
    return dit.attend_turned(q, k, v, None if pe is None else pe.to(q.device))


class Attention(FluxAttention):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, RMSNorm)


@dataclass
class Modulated:
    shift: Tensor
    scale: Tensor
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (1 + self.scale) * x + self.shift

    def add(self, x: Tensor, out: Tensor) -> Tensor:
        return x + self.gate * out


class ModulatedInPlace(Modulated):
    """As ersatzForge does it, which saves memory where it can."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.scale.add_(1), x)

    def add(self, x: Tensor, out: Tensor) -> Tensor:
        return x.addcmul_(self.gate, out)


class Modulation(nn.Module):
    """Chunks ``(N, 1, D)``. The projection's output has the dimension of tokens, or (flat) not: hosts have either."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(width, 3 * count * width)

    def forward(self, vec: Tensor) -> list[Modulated]:
        chunks = self.lin(functional.silu(vec[:, None])).chunk(3 * self.count, dim=-1)
        return [Modulated(*chunks[3 * i : 3 * i + 3]) for i in range(self.count)]


class FlatModulation(Modulation):
    def forward(self, vec: Tensor) -> list[Modulated]:
        chunks = self.lin(functional.silu(vec))[:, None, :].chunk(3 * self.count, dim=-1)
        return [Modulated(*chunks[3 * i : 3 * i + 3]) for i in range(self.count)]


class ModulationInPlace(Modulation):
    def forward(self, vec: Tensor) -> list[Modulated]:
        chunks = self.lin(functional.silu(vec))[:, None, :].chunk(3 * self.count, dim=-1)
        return [ModulatedInPlace(*chunks[3 * i : 3 * i + 3]) for i in range(self.count)]


class DoubleBlock(nn.Module):
    def __init__(self, width: int, heads: int, modulation: type[Modulation]) -> None:
        super().__init__()
        for stream in ("img", "txt"):
            setattr(self, f"{stream}_mod", modulation(width, 2))
            setattr(self, f"{stream}_attn", Attention(width, heads))
            setattr(self, f"{stream}_norm1", nn.LayerNorm(width, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_norm2", nn.LayerNorm(width, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_mlp", mlp(width))

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        return self.modulated(img, txt, self.img_mod(vec), self.txt_mod(vec), pe)

    def modulated(self, img: Tensor, txt: Tensor, img_mods: list, txt_mods: list, pe: Tensor) -> tuple[Tensor, Tensor]:
        image = self.img_attn.parts(img_mods[0](self.img_norm1(img)))
        text = self.txt_attn.parts(txt_mods[0](self.txt_norm1(txt)))
        out = attend(*(torch.cat(pair, dim=2) for pair in zip(text, image, strict=True)), pe=pe)
        img = img_mods[0].add(img, self.img_attn.proj(out[:, txt.shape[1] :]))
        img = img_mods[1].add(img, self.img_mlp(img_mods[1](self.img_norm2(img))))
        txt = txt_mods[0].add(txt, self.txt_attn.proj(out[:, : txt.shape[1]]))
        txt = txt_mods[1].add(txt, self.txt_mlp(txt_mods[1](self.txt_norm2(txt))))
        return img, txt


class SingleBlock(nn.Module):
    def __init__(self, width: int, heads: int, modulation: type[Modulation]) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.modulation = modulation(width, 1)
        self.pre_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear1, self.linear2 = nn.Linear(width, 5 * width), nn.Linear(3 * width, width)
        self.norm = QKNorm(width // heads, RMSNorm)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        return self.modulated(x, self.modulation(vec)[0], pe)

    def modulated(self, x: Tensor, mod: Modulated, pe: Tensor) -> Tensor:
        qkv, hidden = self.linear1(mod(self.pre_norm(x))).split([3 * self.width, 2 * self.width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = attend(*self.norm(q, k, v), v, pe=pe)
        return mod.add(x, self.linear2(torch.cat([out, functional.gelu(hidden)], dim=-1)))


class LastLayer(nn.Module):
    """``tokens``: whether the conditioning gets its dimension of tokens before the projection."""

    def __init__(self, width: int, out: int, tokens: bool, in_place: bool = False) -> None:
        super().__init__()
        self.tokens, self.in_place = tokens, in_place
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        if self.tokens:
            shift, scale = self.adaLN_modulation(vec[:, None]).chunk(2, dim=-1)
        else:
            shift, scale = self.adaLN_modulation(vec).chunk(2, dim=1)
            if self.in_place:
                return self.linear(torch.addcmul(shift[:, None], scale.add_(1)[:, None], self.norm_final(x)))
            shift, scale = shift[:, None], scale[:, None]
        return self.linear((1 + scale) * self.norm_final(x) + shift)


class Flux(nn.Module):
    """Args: ``flat``: modulations make chunks first and the dimension of tokens then; otherwise the other way round.
    ``in_place``: numbers are added in the place of others wherever those are not needed any more."""

    channels = 4

    def __init__(
        self,
        width: int = 32,
        heads: int = 2,
        depth: int = 2,
        singles: int = 2,
        flat: bool = True,
        in_place: bool = False,
    ) -> None:
        super().__init__()
        self.in_place = in_place
        modulation = ModulationInPlace if in_place else FlatModulation if flat else Modulation
        self.pe_embedder = Positions((4, 6, 6))
        self.img_in = nn.Linear(4 * self.channels, width)
        self.time_in, self.guidance_in = Embedder(SINUSOID, width), Embedder(SINUSOID, width)
        self.vector_in = Embedder(10, width)
        self.txt_in = nn.Linear(12, width)
        self.double_blocks = nn.ModuleList([DoubleBlock(width, heads, modulation) for _ in range(depth)])
        self.single_blocks = nn.ModuleList([SingleBlock(width, heads, modulation) for _ in range(singles)])
        self.final_layer = LastLayer(width, 4 * self.channels, tokens=not flat, in_place=in_place)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor, reference: Tensor | None = None) -> Tensor:
        """As :meth:`support.mmdit.MMDiT.forward`, but t is a sigma in [0, 1].

        ``reference``: tokens ``(N, R, 16)`` that follow the picture's.
        """
        tokens, ids, (h, w) = self.patches(x)
        if reference is not None:
            where = torch.arange(reference.shape[1]).float()
            tokens = torch.cat([tokens, reference], dim=1)
            ids = torch.cat([ids, torch.stack([torch.ones_like(where), where, where], dim=-1)])
        return self.picture(self.inner_forward(tokens, ids, context, t, y), h, w)[:, :, : x.shape[-2], : x.shape[-1]]

    @staticmethod
    def patches(x: Tensor, picture: int = 0) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Tokens ``(N, h*w, 16)`` of a latent, which is padded to whole patches, their ids ``(h*w, 3)`` and (h, w)."""
        x = functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="circular")
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        ids = torch.stack([torch.full((h, w), picture), rows, columns], dim=-1)
        return functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2), ids.flatten(0, 1).float(), (h, w)

    @staticmethod
    def picture(tokens: Tensor, h: int, w: int) -> Tensor:
        """The latent of the first ``h*w`` tokens."""
        return functional.pixel_shuffle(tokens[:, : h * w].transpose(1, 2).unflatten(-1, (h, w)), 2)

    def inner_forward(self, tokens: Tensor, ids: Tensor, context: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """From tokens ``(N, L, 16)`` with ids ``(L, 3)`` to tokens."""
        pe = self.pe_embedder(torch.cat([torch.zeros(context.shape[1], 3), ids]).expand(len(tokens), -1, -1))
        return self.blocks(self.img_in(tokens), self.txt_in(context), t, y, pe)

    def blocks(self, img: Tensor, txt: Tensor, t: Tensor, y: Tensor, pe: Tensor) -> Tensor:
        vec = self.time_in(sinusoid(1000 * t, SINUSOID).to(img.dtype))
        guidance = self.guidance_in(sinusoid(torch.full_like(t, 3500.0), SINUSOID).to(img.dtype))
        if self.in_place:
            vec.add_(guidance).add_(self.vector_in(y))
        else:
            vec = vec + guidance + self.vector_in(y)
        for block in self.double_blocks:
            img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
        joined = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            joined = block(joined, vec=vec, pe=pe)
        return self.final_layer(joined[:, txt.shape[1] :], vec)
