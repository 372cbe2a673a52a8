"""Reference pictures as extensions bring them to Forge: another forward in the place of the class's, which appends
their tokens to the picture's before the blocks and cuts them off behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from support.dit import TEXT_TOKENS, DiT, first_of_patches, normal
from support.flux import Flux, attend
from support.naive import flux_modulations
from torch import Tensor
from torch.nn import functional

from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.network import TimeConditioning, time_conditioning
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.token_attention import TokenAttentionCapture

NOMINAL = 500.0
SIZE = (10, 14)
LEVELS = [0.0, 120.0, 480.25, 760.5, 999.0]


class Kontext:
    """The extension: latents ``(1,C,H,W)`` whose tokens follow the picture's, the same for all rows of the batch."""

    def __init__(self, *references: Tensor) -> None:
        tokens, ids, down = [], [], 0
        for latent in references:
            own, where, (h, _) = Flux.patches(latent, picture=1)
            tokens.append(own)
            ids.append(where + torch.tensor([0, down, 0]))  # one below the other
            down += h
        self.tokens, self.ids = torch.cat(tokens, dim=1), torch.cat(ids)

    @contextmanager
    def enabled(self) -> Iterator[None]:
        original, kontext = Flux.forward, self

        def forward(self: Flux, x: Tensor, t: Tensor, y: Tensor, context: Tensor, *rest: object) -> Tensor:
            tokens, ids, (h, w) = self.patches(x)
            tokens = torch.cat([tokens, kontext.tokens.repeat(len(x), 1, 1)], dim=1)
            out = self.inner_forward(tokens, torch.cat([ids, kontext.ids]), context, t, y)
            return self.picture(out[:, : h * w], h, w)[:, :, : x.shape[-2], : x.shape[-1]]

        Flux.forward = forward  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Flux.forward = original  # type: ignore[method-assign]

    def naive(
        self, dit: DiT, x: Tensor, of_tokens: Tensor, of_references: float = NOMINAL, log: list[Tensor] | None = None
    ) -> Tensor:
        """Every token's modulation by itself: ``of_tokens`` ``(N, L)`` for the picture's, the nominal for the text's.

        ``log`` takes the joint attentions' probabilities, ``(N, heads, T+L+R, T+L+R)``.
        """
        net, (y, text) = dit.net, dit.texts(range(len(x)))
        tokens, ids, (h, w) = net.patches(x)
        tokens = torch.cat([tokens, self.tokens.expand(len(x), -1, -1)], dim=1)
        ids = torch.cat([torch.zeros(text.shape[1], 3), ids, self.ids]).expand(len(x), -1, -1)
        pe = net.pe_embedder(ids)
        others = torch.full((len(x), self.tokens.shape[1]), of_references)
        of_text, of_all = torch.full((len(x), text.shape[1]), NOMINAL), torch.cat([of_tokens, others], dim=1)
        modulations = flux_modulations(net, y)
        image, of_image, of_words = net.img_in(tokens), modulations(of_all), modulations(of_text)
        text = net.txt_in(text)

        def joint(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if log is not None:
                log.append(probabilities(q, k, pe))
            return attend(q, k, v, pe=pe)

        for i, block in enumerate(net.double_blocks):
            m, n = of_image("img", i), of_words("txt", i)
            ours = block.img_attn.parts(block.img_norm1(image) * (1 + m[1]) + m[0])
            theirs = block.txt_attn.parts(block.txt_norm1(text) * (1 + n[1]) + n[0])
            out = joint(*(torch.cat(pair, dim=2) for pair in zip(theirs, ours, strict=True)))
            image = image + m[2] * block.img_attn.proj(out[:, text.shape[1] :])
            image = image + m[5] * block.img_mlp(block.img_norm2(image) * (1 + m[4]) + m[3])
            text = text + n[2] * block.txt_attn.proj(out[:, : text.shape[1]])
            text = text + n[5] * block.txt_mlp(block.txt_norm2(text) * (1 + n[4]) + n[3])
        joined, of_both = torch.cat([text, image], dim=1), modulations(torch.cat([of_text, of_all], dim=1))
        for i, block in enumerate(net.single_blocks):
            m = of_both("single", i)
            hidden = block.linear1(block.pre_norm(joined) * (1 + m[1]) + m[0])
            qkv, hidden = hidden.split([3 * block.width, 2 * block.width], dim=-1)
            q, k, v = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
            out = joint(*block.norm(q, k, v), v)
            joined = joined + m[2] * block.linear2(torch.cat([out, functional.gelu(hidden)], dim=-1))
        shift, scale = of_image("final", 0)
        last = net.final_layer.norm_final(joined[:, text.shape[1] :]) * (1 + scale) + shift
        return net.picture(net.final_layer.linear(last), h, w)[:, :, : x.shape[-2], : x.shape[-1]]


def probabilities(q: Tensor, k: Tensor, pe: Tensor) -> Tensor:
    """Softmax of all queries over all keys, float64, with rotary matrices spelt out."""

    def turned(x: Tensor) -> Tensor:
        return torch.einsum("nxlpij,nhlpj->nhlpi", pe.double(), x.double().unflatten(-1, (-1, 2))).flatten(-2)

    return (turned(q) @ turned(k).transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)


@pytest.fixture(params=["flux", "flux objects"])
def dit(request: pytest.FixtureRequest) -> DiT:
    return DiT(request.param)


@pytest.fixture
def kontext() -> Kontext:
    """Two references, one of an odd size."""
    return Kontext(normal(1, 4, 8, 12, seed=70), normal(1, 4, 5, 7, seed=71))


@pytest.fixture
def maps() -> Tensor:
    index = torch.randint(0, len(LEVELS), (2, 1, *SIZE), generator=torch.Generator().manual_seed(72))
    return torch.tensor(LEVELS, dtype=torch.float64)[index]


def table_of(maps: Tensor) -> TimestepTable:
    return TimestepTable.from_map(maps, 0.25).to(torch.device("cpu"))


def close(found: Tensor, expected: Tensor) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < 2e-6, f"{difference:.2e} relative"


@contextmanager
def both(order: str, kontext: Kontext, time: TimeConditioning) -> Iterator[None]:
    """Our hooks on the network and the other forward, in either order."""
    first, second = (kontext.enabled, time.attached) if order == "forward first" else (time.attached, kontext.enabled)
    with first(), second():
        yield


@pytest.mark.parametrize("order", ["forward first", "hooks first"])
def test_pixels_have_their_timestep_and_references_the_nominal(
    dit: DiT, kontext: Kontext, maps: Tensor, order: str
) -> None:
    x, time = normal(2, 4, *SIZE, seed=73), time_conditioning(dit.net)
    with both(order, kontext, time):
        plain = dit(x, NOMINAL)
        time.use(table_of(maps), [0, 1])
        found = dit(x, NOMINAL)
        assert time.calls == dit.modulations
        time.use(None, ())
        assert torch.equal(dit(x, NOMINAL), plain)
    close(found, kontext.naive(dit, x, first_of_patches(maps)))
    assert float((found - plain).abs().max() / plain.abs().max()) > 0.05
    assert float((plain - dit(x, NOMINAL)).abs().max() / plain.abs().max()) > 0.05, "references do something"


def test_references_at_another_level_would_be_seen(dit: DiT, kontext: Kontext, maps: Tensor) -> None:
    """What the comparison above is worth."""
    x = normal(2, 4, *SIZE, seed=73)
    right, wrong = (kontext.naive(dit, x, first_of_patches(maps), of_references=t) for t in (NOMINAL, LEVELS[-1]))
    assert float((right - wrong).abs().max() / right.abs().max()) > 1e-2


def test_capture_reads_the_picture_s_queries_over_all_keys(dit: DiT, kontext: Kontext, maps: Tensor) -> None:
    """A conditional row with two objects, and an unconditional one."""
    x, time = normal(2, 4, *SIZE, seed=74), time_conditioning(dit.net)
    rows, tokens = [TokenRow(0, [[2], [0, 5]]), None], (SIZE[0] // 2) * (SIZE[1] // 2)
    capture = TokenAttentionCapture(dit.layout, objects=2, images=1)
    with kontext.enabled(), time.attached(), capture.attached():
        capture.begin(SIZE)
        time.use(table_of(maps[:1]), [0, 0])
        capture.read(rows)
        dit(x, NOMINAL)
        found = capture.maps()
    log: list[Tensor] = []
    kontext.naive(dit, x, first_of_patches(maps[:1]).expand(2, -1), log=log)
    assert log[0].shape[-1] == TEXT_TOKENS + tokens + kontext.tokens.shape[1]
    seen = torch.stack([layer[0, :, TEXT_TOKENS : TEXT_TOKENS + tokens].mean(dim=0) for layer in log]).mean(dim=0)
    expected = torch.stack([seen[:, 2], seen[:, [0, 5]].mean(dim=1)]).view(1, 2, SIZE[0] // 2, SIZE[1] // 2)
    assert found is not None
    close(found, expected)
