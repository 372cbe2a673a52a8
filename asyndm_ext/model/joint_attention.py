"""Attention of image tokens to chosen text tokens in diffusion transformers, beside the host's attention.

The joint softmax runs over text and image keys together, so a probability needs the sum over all keys, thousands of
them. The host's own attention has it at hand: :mod:`asyndm_ext.model.softmax_sum` asks for it, and all that is left to
work out is the product of the queries and the objects' few keys. The queries and keys are those of the host's call,
its answer keeps its bits.

Where the host's attention is not torch's (xformers, sub-quadratic, a mask), it takes a second attention, for the
image's queries of the conditional rows. The fused kernel can be made to tell a probability without the matrix of all:
attention over values that are 1 at an object's tokens and 0 elsewhere. Queries and keys are then taken as they leave
their norms (SD3.5's and Flux's q and k are normalised) and turned by the network's own rotary embedding where it has
one, so they are the exact ones whatever attention the host runs.

The second attention takes 0.7 to 0.9 of the time of the host's own for such a row, in no more memory (one CPU thread,
float32, 24 heads, 1024 and 4096 image tokens); with the host's sum it is 0.02 (1024 tokens). Log-sum-exp in chunks took
1.0 to 2.9 and many times the memory. Values narrower than the queries leave the fused kernels (2.3 to 3.8, and the
whole matrix of probabilities).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.model.attention import AttentionCapture, TokenRow, mean_per_object, without_autocast
from asyndm_ext.model.dit_time import is_chroma, is_flux, is_mmdit
from asyndm_ext.model.patches import patch_grid
from asyndm_ext.model.softmax_sum import SoftmaxSum, Trusted, key_probabilities
from asyndm_ext.model.unet_time import UnsupportedModel

# Half floats have few bits left for probabilities below 1e-4; a power of two costs no precision.
_SCALE = 1024.0


def indicator(columns: Sequence[Sequence[int]], keys: int, width: int) -> Tensor:
    """Values ``(keys, width)`` that make attention sum the probabilities of an object's tokens.

    Args:
        columns: for each object the keys that are its tokens.
        keys: number of keys. width: of a value, at least the number of objects; the rest is 0.
    """
    values = torch.zeros(keys, width)
    for number, own in enumerate(columns):
        values[list(own), number] = _SCALE
    return values


def joint_probabilities(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """Softmax over all keys, then per object the sum over its tokens and the mean over heads.

    Args:
        q: ``(heads, L, d)``, the queries of interest. k: ``(heads, S, d)``, all keys. One row of the batch.
        values: :func:`indicator`, of q's dtype and device. As wide as q it suits the flash kernels, which want it so.

    Returns:
        ``(width, L)`` float32. Computed in the dtype of q (the fast kernels of a GPU are for its own); on the
        CPU, give it float32.
    """
    every_head = values.expand(1, len(k), -1, -1)
    found = torch.nn.functional.scaled_dot_product_attention(q.unsqueeze(0), k.unsqueeze(0), every_head)
    return (found[0].float().mean(dim=0) / _SCALE).transpose(0, 1)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) of pairs of channels: ``x`` ``(heads, L, d)``, matrices ``(L, d/2, 2, 2)``."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    turned = rotation[..., 0] * pairs[..., 0] + rotation[..., 1] * pairs[..., 1]
    return turned.reshape(x.shape).to(x.dtype)


@dataclass(frozen=True)
class _Layer:
    """What a joint attention is made of: before it is called, that is all there is to know.

    Attributes:
        queries, keys: of the image, ``(N, heads, L, d)``; ``text_keys`` ``(N, heads, T, d)``. Not yet rotated.
        rotation: ``(1 or N, T+L, d/2, 2, 2)``, or None where the network has none.
        rows: what to read from each row.
    """

    queries: Tensor
    keys: Tensor
    text_keys: Tensor
    rotation: Tensor | None
    rows: Sequence[TokenRow | None]

    @property
    def text(self) -> int:
        """Tokens of the text, which come first."""
        return self.text_keys.shape[2]

    def is_of(self, q: Tensor, k: Tensor) -> bool:
        """Whether a call of the host's attention with these is this one."""
        n, heads, tokens, width = self.queries.shape
        both = (n, heads, self.text + tokens, width)
        return q.shape == both and k.shape == both


class JointAttentionCapture(AttentionCapture):
    """Accumulates Eq. 7's averaged maps over all joint attentions of one or several model calls.

    Maps are on the token grid (:func:`asyndm_ext.model.patches.patch_grid`); columns count the text tokens as the
    network gets them. SD3.5 medium's second attention, of the image to itself, has no text and does not count.

    Args:
        network: an MMDiT, Flux or Chroma.
        objects: number of objects.
        images: number of images in the batch.
    """

    def __init__(self, network: nn.Module, objects: int, images: int) -> None:
        super().__init__(objects, images)
        self._network: Any = network
        if not (is_mmdit(network) or is_flux(network) or is_chroma(network)):
            raise UnsupportedModel(f"{type(network).__name__} has no joint attention that AsynDM knows")
        if getattr(network, "register_length", 0):
            raise UnsupportedModel(f"{type(network).__name__} puts register tokens before the text")
        self._held: dict[tuple[int, str], Tensor] = {}
        self._values: dict[tuple[int, int], Tensor] = {}
        self._next: _Layer | None = None
        self._second = False
        self._trusted: Trusted = {}
        self._rotation: Tensor | None = None
        self._image_tokens = 0

    @property
    def layers(self) -> int:
        """Number of joint attentions in the network."""
        if is_mmdit(self._network):
            return len(self._network.joint_blocks)
        return len(self._network.double_blocks) + len(self._network.single_blocks)

    @contextmanager
    def attached(self) -> Iterator[JointAttentionCapture]:
        """Register the hooks; they are removed however the block is left."""
        try:
            with ExitStack() as hooks:
                for module, hook in self._mmdit_hooks() if is_mmdit(self._network) else self._flux_hooks():
                    hooks.callback(module.register_forward_hook(hook).remove)
                # Not kept: it knows this object, and a circle would keep tensors until the garbage collector comes by.
                hooks.enter_context(SoftmaxSum(self._on_attention, self._missed, self._trusted).attached())
                yield self
        finally:
            self.read(())
            self._next = None

    def grid(self, latent_size: tuple[int, int]) -> tuple[int, int]:
        return patch_grid(*latent_size)

    def begin(self, latent_size: tuple[int, int]) -> None:
        super().begin(latent_size)
        self._next = None

    def read(self, rows: Sequence[TokenRow | None]) -> None:
        super().read(rows)
        self._held.clear()
        self._values.clear()
        self._rotation = None

    def maps(self) -> Tensor | None:
        self._missed()
        return super().maps()

    # -- SD3, SD3.5: (N, L, heads, d)

    def _mmdit_hooks(self) -> Iterator[tuple[nn.Module, Callable]]:
        for number, block in enumerate(self._network.joint_blocks):
            yield block.context_block.attn.ln_k, self._hold(number, "text_keys")
            yield block.x_block.attn.ln_q, self._hold(number, "queries")
            yield block.x_block.attn.ln_k, self._hold(number, "keys")

    def _hold(self, number: int, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if self._rows:
                self._take(number, **{name: output.transpose(1, 2)})

        return hook

    # -- Flux, Chroma: (N, heads, L, d), not yet rotated

    def _flux_hooks(self) -> Iterator[tuple[nn.Module, Callable]]:
        yield self._network.pe_embedder, self._on_positions
        for number, block in enumerate(self._network.double_blocks):
            yield block.img_attn.norm, self._on_image_norm(number)
            yield block.txt_attn.norm, self._on_text_norm(number)
        for number, block in enumerate(self._network.single_blocks, start=len(self._network.double_blocks)):
            yield block.norm, self._on_single_norm(number)

    def _on_positions(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._rows:
            self._rotation = output[:, 0]

    def _on_image_norm(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
            if self._rows:
                self._image_tokens = output[0].shape[2]
                self._take(number, queries=output[0], keys=output[1])

        return hook

    def _on_text_norm(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
            if self._rows:
                self._take(number, text_keys=output[1])

        return hook

    def _on_single_norm(self, number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
            if self._rows:
                q, k = output
                text = k.shape[2] - self._image_tokens
                self._take(number, queries=q[:, :, text:], keys=k[:, :, text:], text_keys=k[:, :, :text])

        return hook

    # -- both

    def _take(self, number: int, **parts: Tensor) -> None:
        """Hold what a layer has shown so far, ``(N, heads, L, d)`` each; read it once all is there."""
        self._held.update({(number, name): part for name, part in parts.items()})
        names = ("queries", "keys", "text_keys")
        if not all((number, name) in self._held for name in names):
            return
        q, k, text = (self._held.pop((number, name)) for name in names)
        if len(q) != len(self._rows) or q.shape[2] < self._pixels:
            return
        for wanted in self._rows:
            last = max((column for own in wanted.columns for column in own), default=0) if wanted is not None else 0
            if last >= text.shape[2]:  # it would be the key of a pixel: another extension shortens the text
                return
        self._missed()
        self._next = _Layer(q, k, text, self._rotation, self._rows)
        if self._second:
            self._missed()

    @property
    def _pixels(self) -> int:
        """How many image tokens have a pixel; reference images follow the picture."""
        return self._size[0] * self._size[1]

    # -- with the sum of the host's softmax

    def _on_attention(self, q: Tensor, k: Tensor) -> Callable[[Tensor], None] | None:
        layer = self._next
        if layer is None or not layer.is_of(q, k):
            return None

        def tell(log_sums: Tensor) -> None:
            self._next = None
            image = slice(layer.text, layer.text + self._pixels)
            for row, wanted in enumerate(layer.rows):
                if wanted is not None:
                    self._add(wanted, _objects_of(q[row][:, image], k[row], log_sums[row][:, image], wanted.columns))

        return tell

    # -- with a second attention

    def _missed(self) -> None:
        """The host's attention has not come by, or does not tell its sum: from now on it is not waited for."""
        if self._next is None:
            return
        layer, self._next, self._second = self._next, None, True
        for row, wanted in enumerate(layer.rows):
            if wanted is not None:
                self._add(wanted, self._read(layer, row, wanted))

    def _read(self, layer: _Layer, row: int, wanted: TokenRow) -> Tensor:
        queries, k = layer.queries[row, :, : self._pixels], torch.cat([layer.text_keys[row], layer.keys[row]], dim=1)
        if layer.rotation is not None:
            rotation = layer.rotation[row if len(layer.rotation) > 1 else 0]
            queries = rotate(queries, rotation[layer.text : layer.text + self._pixels])
            k = rotate(k, rotation)
        on_cpu = k.device.type == "cpu"
        if on_cpu:
            queries, k = queries.float(), k.float()
        values = self._values_of(row, wanted, k)
        tokens = torch.tensor([max(len(own), 1) for own in wanted.columns]).to(k.device)
        with without_autocast(k.device) if on_cpu else nullcontext():
            found = joint_probabilities(queries, k, values)
        return found[: self._objects] / tokens.unsqueeze(-1)

    def _values_of(self, row: int, wanted: TokenRow, k: Tensor) -> Tensor:
        key = (row, k.shape[1])
        if key not in self._values:  # the same in every layer
            width = max(self._objects, k.shape[-1])
            self._values[key] = indicator(wanted.columns, k.shape[1], width).to(k)
        return self._values[key]


def _objects_of(q: Tensor, k: Tensor, log_sums: Tensor, columns: Sequence[Sequence[int]]) -> Tensor:
    """Mean probability of each object's tokens, ``(n,L)``; arguments as of :func:`key_probabilities`, all keys."""
    tokens = sorted({column for own in columns for column in own})
    if not tokens:
        return mean_per_object([()] * len(columns), q.shape[1], q.device)
    found = key_probabilities(q, torch.stack([k[:, token] for token in tokens], dim=1), log_sums)
    picked = [[found[:, tokens.index(column)] for column in own] for own in columns]
    return mean_per_object(picked, q.shape[1], q.device)
