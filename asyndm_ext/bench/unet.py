"""UNets of Stable Diffusion's shape and module layout (ldm, sgm), with random weights.

The parts are called as in the WebUIs' networks, so that the hooks that work there work here: ResBlocks of
``in_layers``, ``emb_layers``, ``out_layers``; transformer blocks of ``attn1``, ``attn2``, ``ff``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyndm_ext.model.timesteps import timestep_embedding

_GROUPS = 32


@dataclass(frozen=True)
class UNetShape:
    """The numbers of a model card.

    Attributes:
        width: channels at the full resolution; ``levels``: its multiples, a level each.
        transformers: transformer blocks in each attention of a level; 0 for none.
        res_blocks: ResBlocks per level on the way down.
        context: width of the text's tokens. head: channels of an attention head.
        labels: width of the vector beside the text (SDXL), or 0.
        groups: of the normalisations.
    """

    width: int
    levels: tuple[int, ...]
    transformers: tuple[int, ...]
    res_blocks: int
    context: int
    head: int = 64
    labels: int = 0
    groups: int = _GROUPS


class ResBlock(nn.Module):
    def __init__(self, channels: int, embedding: int, out: int, groups: int = _GROUPS) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x)
        added = self.emb_layers(emb).type(h.dtype)
        while added.ndim < h.ndim:
            added = added[..., None]
        return self.skip_connection(x) + self.out_layers(h + added)


class Attention(nn.Module):
    def __init__(self, width: int, context: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.scale = head**-0.5
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * functional.gelu(gate)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, context: int, head: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width, head), Attention(width, context, head)
        self.ff = nn.Sequential(GEGLU(width), nn.Linear(4 * width, width))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = self.attn1(normed, normed) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, width: int, context: int, head: int, depth: int, groups: int = _GROUPS) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context, head) for _ in range(depth)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return self.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[-2:]).contiguous() + x


class Stage(nn.ModuleList):
    """Some modules, each called with what it takes."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        for module in self:
            if isinstance(module, ResBlock):
                x = module(x, emb)
            elif isinstance(module, SpatialTransformer):
                x = module(x, context)
            else:
                x = module(x)
        return x


class UNet(nn.Module):
    """``(N,4,H,W)``, timesteps ``(N,)``, context ``(N,T,D)``, vector ``(N,labels)`` or None -> ``(N,4,H,W)``.

    Without any transformer blocks, no context.
    """

    sinusoid = staticmethod(timestep_embedding)

    def __init__(self, shape: UNetShape, channels: int = 4) -> None:
        super().__init__()
        width, embedding = shape.width, 4 * shape.width
        self.shape = shape
        self.time_embed = _mlp(width, embedding)
        if shape.labels:
            self.label_emb = nn.Sequential(_mlp(shape.labels, embedding))
        stages, sizes, last = [Stage([nn.Conv2d(channels, width, 3, padding=1)])], [width], width
        for level, (multiple, depth) in enumerate(zip(shape.levels, shape.transformers, strict=True)):
            for _ in range(shape.res_blocks):
                stages.append(self._stage(last, multiple * width, depth, embedding))
                last = multiple * width
                sizes.append(last)
            if level < len(shape.levels) - 1:
                stages.append(Stage([nn.Conv2d(last, last, 3, stride=2, padding=1)]))
                sizes.append(last)
        self.input_blocks = nn.ModuleList(stages)
        # SD's deepest level has no attention of its own, the middle of the network has.
        depth = shape.transformers[-1] or shape.transformers[-2]
        self.middle_block = self._stage(last, last, depth, embedding)
        self.middle_block.append(ResBlock(last, embedding, last, shape.groups))
        stages = []
        for level in reversed(range(len(shape.levels))):
            for number in range(shape.res_blocks + 1):
                out = shape.levels[level] * width
                stage = self._stage(last + sizes.pop(), out, shape.transformers[level], embedding)
                last = out
                if level and number == shape.res_blocks:
                    stage.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
                    stage.append(nn.Conv2d(last, last, 3, padding=1))
                stages.append(stage)
        self.output_blocks = nn.ModuleList(stages)
        self.out = nn.Sequential(nn.GroupNorm(shape.groups, last), nn.SiLU(), nn.Conv2d(last, channels, 3, padding=1))

    def _stage(self, channels: int, out: int, depth: int, embedding: int) -> Stage:
        stage = Stage([ResBlock(channels, embedding, out, self.shape.groups)])
        if depth:
            stage.append(SpatialTransformer(out, self.shape.context, self.shape.head, depth, self.shape.groups))
        return stage

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        emb = self.time_embed(self.sinusoid(timesteps, self.shape.width).type(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for stage in self.output_blocks:
            skip = skips.pop()
            if h.shape[-2:] != skip.shape[-2:]:  # of a latent whose sides cannot be halved so often
                h = functional.interpolate(h, skip.shape[-2:], mode="nearest")
            h = stage(torch.cat([h, skip], dim=1), emb, context)
        return self.out(h)


def _mlp(inside: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, width), nn.SiLU(), nn.Linear(width, width))
