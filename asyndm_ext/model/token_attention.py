"""Attention of image tokens to chosen text tokens in diffusion transformers, beside the host's attention.

A joint softmax runs over text and image keys together, so a probability needs the sum over all keys, thousands of
them; a cross-attention's runs over the text's alone. The host's own attention has that sum at hand:
:mod:`asyndm_ext.model.softmax_sum` asks for it, and all that is left to work out is the product of the queries and the
objects' few keys, for all rows and words at once. The queries and keys are those of the host's call, its answer keeps
its bits. On a GPU such a kernel is asked once more instead, for many layers together
(:mod:`asyndm_ext.model.object_sums`).

Where the host's attention is not torch's (xformers, sub-quadratic, a mask), it takes a second attention
(:mod:`asyndm_ext.model.second_attention`), for the image's queries of the conditional rows. Queries and keys are then
taken as they leave their norms (:class:`asyndm_ext.model.transformers.layout.Shown`) and turned by the network's own
rotary embedding where it has one, so they are the exact ones whatever attention the host runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.machine.compiling import is_compiling
from asyndm_ext.machine.costs import works_slowly
from asyndm_ext.machine.transfer import sent
from asyndm_ext.model.attention import AttentionCapture, TokenRow
from asyndm_ext.model.cross_probabilities import without_autocast
from asyndm_ext.model.object_sums import ObjectKeys, ObjectSums
from asyndm_ext.model.patches import patch_grid
from asyndm_ext.model.second_attention import indicator, joint_probabilities, rotate
from asyndm_ext.model.softmax_sum import SoftmaxSum, Trusted, key_probabilities
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown


class _Wanted:
    """What to read in a call, as tensors beside the network: made once, used in every layer.

    Args:
        rows: of the network's batch.
        objects: number of objects.
        device: where the network runs.

    Attributes:
        tokens: the rows that are read; images: those that they belong to ``(W,)``.
        rows: which of the batch's they are, a slice where they follow one another.
        columns: the keys of their tokens ``(W, m)``, each row's one after another, filled up with the first.
        share: ``(W, n, m)``, what a token counts in the mean of an object's.
        last_column: the last of all of them.
        divisors: ``(W, n, 1)``, how many tokens an object has, at least 1.
        keys: the same for a kernel.
        values: for a second attention, by number of keys, width and dtype: an :func:`indicator` for each row.
    """

    def __init__(self, rows: Sequence[TokenRow | None], objects: int, device: torch.device) -> None:
        self.tokens = [row for row in rows if row is not None]
        self.images = _beside(torch.tensor([row.image for row in self.tokens]), device)
        self.values: dict[tuple, Tensor] = {}
        numbers = [number for number, row in enumerate(rows) if row is not None]
        first, last = numbers[0], numbers[-1] + 1
        follow = last - first == len(numbers)
        self.rows: slice | Tensor = slice(first, last) if follow else _beside(torch.tensor(numbers), device)
        keys = [sorted({column for own in row.columns for column in own}) for row in self.tokens]
        self.last_column = max([0, *(column for own in keys for column in own)])
        most = max(1, *map(len, keys))
        share = torch.zeros(len(keys), objects, most)
        for i, row in enumerate(self.tokens):
            for number, own in enumerate(row.columns):
                for column in own:
                    share[i, number, keys[i].index(column)] += 1 / len(own)
        self.columns = _beside(torch.tensor([[*own, *[0] * (most - len(own))] for own in keys]), device)
        self.share = _beside(share, device)
        counts = [[max(len(own), 1) for own in row.columns] for row in self.tokens]
        self.divisors = _beside(torch.tensor(counts).unsqueeze(-1), device)
        self.keys = ObjectKeys(self.rows, self.columns, self.share, 1 + self.last_column)


_beside = sent


class _Heads:
    """Queries or keys of a part of the tokens as a module has shown them. Mostly only their size is asked for.

    Args:
        given: ``(N, heads, L, d)`` if ``heads_first``, else ``(N, L, heads, d)``, L of several dimensions perhaps.
    """

    __slots__ = ("_first", "_given", "heads", "rows", "tokens", "width")

    def __init__(self, given: Tensor, heads_first: bool) -> None:
        self._given, self._first = given, heads_first
        if heads_first:
            self.rows, self.heads, self.tokens, self.width = given.shape
        else:
            self.rows, *tokens, self.heads, self.width = given.shape
            self.tokens = math.prod(tokens)

    def all(self) -> Tensor:
        """``(N, heads, L, d)``."""
        return self._given if self._first else self._given.flatten(1, -3).transpose(1, 2)


class _Layer:
    """What an attention is made of: before it is called, that is all there is to know.

    Args:
        queries: of the picture and what follows it, not yet rotated; of the text before it, too, if it is in there.
        keys: one part after another, the text's first; of groups of heads perhaps.
        before: how many of the host's queries come before the picture's. shown: how many of ``queries`` do.

    Attributes:
        rows: of the network's batch. pixels: queries from the picture's first one on.
    """

    __slots__ = ("_keys", "_queries", "_shown", "before", "pixels", "rows")

    def __init__(self, queries: _Heads, keys: tuple[_Heads, ...], before: int, shown: int = 0) -> None:
        self._queries, self._keys, self._shown = queries, keys, shown
        self.before = before
        self.rows, self.pixels = queries.rows, queries.tokens - shown

    def is_of(self, q: Tensor, k: Tensor) -> bool:
        """Whether a call of the host's attention with these is this one."""
        own = self._queries
        if q.shape != (own.rows, own.heads, self.before + self.pixels, own.width):
            return False
        return k.shape == (own.rows, own.heads, sum(part.tokens for part in self._keys), own.width)

    def from_picture(self) -> Tensor:
        """Queries ``(N, heads, L, d)``, from the picture's first one on."""
        return self._queries.all()[:, :, self._shown :]

    def parts(self) -> list[Tensor]:
        """Keys ``(N, heads, S, d)``, one after another."""
        return [part.all() for part in self._keys]


class TokenAttentionCapture(AttentionCapture):
    """Accumulates Eq. 7's averaged maps over all attentions to the text of one or several model calls.

    Maps are on the token grid (:func:`asyndm_ext.model.patches.patch_grid`); columns count the text tokens as the
    network gets them.

    Args:
        layout: of the network.
        objects: number of objects.
        images: number of images in the batch.
        memory: bytes that may be taken for a while, see :func:`asyndm_ext.model.cross_probabilities.memory_for`.
    """

    def __init__(self, layout: Layout, objects: int, images: int, memory: int = 0) -> None:
        super().__init__(objects, images)
        self._layout = layout
        self._held: dict[str, _Heads] = {}
        self._wanted: _Wanted | None = None
        self._known: tuple[tuple, _Wanted] | None = None
        self._found: Tensor | None = None
        self._layers_found = 0
        self._next: _Layer | None = None
        self._second = False
        self._trusted: Trusted = {}
        self._sums = ObjectSums(memory, self._trusted)
        self._rotation: Tensor | None = None
        self._picture = 0

    @property
    def layers(self) -> int:
        """Number of attentions to the text in the network."""
        return len(self._layout.attentions)

    @contextmanager
    def attached(self) -> Iterator[TokenAttentionCapture]:
        """Register the hooks; they are removed however the block is left."""
        try:
            with ExitStack() as hooks:
                for module, hook in self._hooks():
                    hooks.callback(module.register_forward_hook(hook).remove)
                # Not kept: it knows this object, and a circle would keep tensors until the garbage collector comes by.
                hooks.enter_context(SoftmaxSum(self._on_attention, self._missed, self._trusted).attached())
                yield self
                self._add_up()
        finally:
            self._forget()
            self.read(())
            self._known = None

    def grid(self, latent_size: tuple[int, int]) -> tuple[int, int]:
        return patch_grid(*latent_size, self._layout.patch)

    def begin(self, latent_size: tuple[int, int]) -> None:
        super().begin(latent_size)
        self._forget()

    def read(self, rows: Sequence[TokenRow | None]) -> None:
        if rows:
            self._add_up()
        super().read(rows)
        self._held.clear()

    def maps(self) -> Tensor | None:
        self._add_up()
        return super().maps()

    def _add_up(self) -> None:
        """What the layers of the call before have shown goes to the sum of all calls."""
        self._missed()
        of_sums = self._sums.found()
        if of_sums is not None:
            self._found_more(of_sums)
        if self._found is not None:
            assert self._wanted is not None
            self._add(self._wanted.tokens, self._wanted.images, self._found, self._layers_found)
        self._forget()

    def _forget(self) -> None:
        """The call before."""
        self._held.clear()
        self._next = self._wanted = self._found = self._rotation = None
        self._sums.forget()
        self._layers_found = self._picture = 0

    # -- what the network's modules show

    def _hooks(self) -> Iterator[tuple[nn.Module, Callable]]:
        layout = self._layout
        if layout.positions is not None:
            yield layout.positions, self._on_positions
        if layout.picture is not None:
            yield layout.picture, self._on_picture
        for attention in layout.attentions:
            for shown in attention:
                yield shown.module, self._on_shown(shown, attention)

    def _on_positions(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._rows:
            self._rotation = output

    def _on_picture(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._picture = output.shape[1]

    def _on_shown(self, shown: Shown, attention: Attention) -> Callable:
        names = len({part for one in attention for part in one.parts if part})
        held = self._held

        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if not self._rows:
                return
            outputs = output if isinstance(output, tuple) else (output,)
            for name, part in zip(shown.parts, outputs, strict=False):
                if name:
                    held[name] = _Heads(part, shown.heads_first)
            if len(held) >= names:
                self._take(part.device, **held)
                held.clear()

        return hook

    def _take(
        self,
        device: torch.device,
        queries: _Heads | None = None,
        keys: _Heads | None = None,
        text_keys: _Heads | None = None,
        all_queries: _Heads | None = None,
        all_keys: _Heads | None = None,
    ) -> None:
        """Remember what a layer has shown until it attends."""
        if all_queries is not None and all_keys is not None:
            text = all_queries.tokens - self._picture
            layer = _Layer(all_queries, (all_keys,), before=text, shown=text)
        else:
            assert queries is not None and text_keys is not None
            text = text_keys.tokens
            parts = (text_keys,) if keys is None else (text_keys, keys)
            layer = _Layer(queries, parts, before=0 if keys is None else text)
        if layer.rows != len(self._rows) or layer.pixels < self._pixels:
            return
        wanted = self._wanted or self._wanted_on(device)
        # Beyond the text would be the key of a pixel: another extension shortens it.
        if wanted is None or wanted.last_column >= text:
            return
        if self._next is not None:
            self._missed()
        if is_compiling():  # the host's attention is not asked there
            self._gather(self._read(layer))
            return
        self._next = layer
        if self._second:
            self._missed()

    def _wanted_on(self, device: torch.device) -> _Wanted | None:
        if self._wanted is None and any(row is not None for row in self._rows):
            key = (tuple(None if row is None else (row.image, *map(tuple, row.columns)) for row in self._rows), device)
            if self._known is None or self._known[0] != key:  # the prompt rarely changes from step to step
                self._known = key, _Wanted(self._rows, self._objects, device)
            self._wanted = self._known[1]
        return self._wanted

    @property
    def _pixels(self) -> int:
        """How many image tokens have a pixel; reference images follow the picture."""
        return self._size[0] * self._size[1]

    def _gather(self, found: Tensor) -> None:
        """A layer's probabilities ``(W, n, L)``."""
        self._found_more(found)
        self._layers_found += 1

    def _found_more(self, found: Tensor) -> None:
        self._found = found if self._found is None else self._found.add_(found)

    # -- with the sum of the host's softmax

    def _on_attention(self, q: Tensor, k: Tensor) -> Callable[[Tensor], None] | None:
        layer = self._next
        if layer is None or not layer.is_of(q, k):
            return None

        def tell(log_sums: Tensor) -> None:
            self._next = None
            assert self._wanted is not None
            image = slice(layer.before, layer.before + self._pixels)
            # Where arithmetic costs more than telling it, one product of a few keys is less than another kernel.
            if not works_slowly(q.device) and self._sums.take(q, k, log_sums, self._wanted.keys, image):
                self._layers_found += 1
                return
            rows = self._wanted.rows
            key = self._wanted.columns[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
            found = key_probabilities(q[rows, :, image], k[rows].gather(2, key), log_sums[rows, :, image])
            # No matrix product: a GPU may make those in fewer bits.
            self._gather((self._wanted.share.unsqueeze(2) * found.unsqueeze(1)).sum(dim=-1))

        return tell

    # -- with a second attention

    def _missed(self) -> None:
        """The host's attention has not come by, or does not tell its sum: from now on it is not waited for."""
        if self._next is None:
            return
        layer, self._next, self._second = self._next, None, True
        self._gather(self._read(layer))

    def _read(self, layer: _Layer) -> Tensor:
        assert self._wanted is not None
        rows = self._wanted.rows
        queries = layer.from_picture()[rows][:, :, : self._pixels]
        k = torch.cat([part[rows] for part in layer.parts()], dim=2)
        k = k.repeat_interleave(queries.shape[1] // k.shape[1], dim=1)
        if self._rotation is not None:
            rotation = self._rotation[rows] if len(self._rotation) > 1 else self._rotation
            queries = rotate(queries, rotation[:, :, layer.before : layer.before + self._pixels])
            k = rotate(k, rotation)
        on_cpu = k.device.type == "cpu"
        if on_cpu:
            queries, k = queries.float(), k.float()
        with without_autocast(k.device) if on_cpu else nullcontext():
            found = joint_probabilities(queries, k, self._values_of(k))
        return found[:, : self._objects] / self._wanted.divisors

    def _values_of(self, k: Tensor) -> Tensor:
        assert self._wanted is not None
        keys, width = k.shape[2], max(self._objects, k.shape[-1])
        key = (keys, width, k.dtype)
        if key not in self._wanted.values:  # the same in every layer
            values = torch.stack([indicator(row.columns, keys, width) for row in self._wanted.tokens])
            self._wanted.values[key] = sent(values.to(k.dtype), k.device)
        return self._wanted.values[key]
