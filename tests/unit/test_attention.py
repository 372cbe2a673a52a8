"""Captured attention against explicit softmax of a processor of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from support.ldm_unet import LdmUNet
from torch import Tensor, nn

from asyndm_ext.model.attention import CrossAttentionCapture, TokenRow, quarter_grid
from asyndm_ext.model.cross_probabilities import token_probabilities
from asyndm_ext.region.grid import halved_grid
from asyndm_ext.region.regions import ObjectRegion

TEXT, TOKENS = 12, 7
SIZES = [(16, 16), (16, 24), (33, 49), (20, 12)]


@cache
def unet() -> nn.Module:
    """Cross-attention at the full, half, quarter and eighth side; the quarter's are one down and two up."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    for name, weight in net.named_parameters():
        if "attn2.to_q" in name or "attn2.to_k" in name:
            weight.data *= 2  # random weights attend to everything alike, which no test could tell apart
    return net.eval().requires_grad_(False)


def cross_attentions(net: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in net.named_modules() if name.endswith("attn2")}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def forward(net: nn.Module, x: Tensor, timestep: float = 300.0) -> Tensor:
    context = normal(len(x), TOKENS, TEXT, seed=2).to(x.dtype)
    return net(x, torch.tensor(timestep), encoder_hidden_states=context).sample


class Recording:
    """An attention processor that writes its softmax down."""

    def __init__(self, name: str, log: dict[str, Tensor]) -> None:
        self.name, self.log = name, log

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_: object) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        n, heads = len(hidden_states), attn.heads
        q, k, v = (
            projection(source).view(n, -1, heads, attn.inner_dim // heads).permute(0, 2, 1, 3)
            for projection, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        if encoder_hidden_states is None:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            logits = torch.einsum("nhld,nhtd->nhlt", q.double(), k.double()) / (attn.inner_dim // heads) ** 0.5
            exponentials = (logits - logits.amax(dim=-1, keepdim=True)).exp()
            probabilities = exponentials / exponentials.sum(dim=-1, keepdim=True)
            self.log[self.name] = probabilities
            out = probabilities.to(v.dtype) @ v
        out = out.permute(0, 2, 1, 3).reshape(n, -1, attn.inner_dim)
        return attn.to_out[1](attn.to_out[0](out))


@pytest.fixture
def explicit():
    """Runs the network with explicit softmax: ``(output, {layer: (N, heads, L, T)})``."""
    net = unet()
    original = net.attn_processors

    def run(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        log: dict[str, Tensor] = {}
        net.set_attn_processor({name: Recording(name.removesuffix(".processor"), log) for name in original})
        try:
            return forward(net, x), log
        finally:
            net.set_attn_processor(dict(original))

    return run


def expected_maps(log: dict[str, Tensor], size: tuple[int, int], rows: Sequence[TokenRow | None]) -> Tensor:
    """Eq. 7's average, spelt out: over tokens, heads, layers, and the rows of an image that have the object."""
    h, w = -(-size[0] // 4), -(-size[1] // 4)
    layers = [p for p in log.values() if p.shape[2] == h * w]
    assert len(layers) == 3, "one layer down and two up at a quarter of the side"
    assert len(log) == 10
    images = 1 + max(row.image for row in rows if row is not None)
    objects = max(len(row.columns) for row in rows if row is not None)
    result = torch.zeros(images, objects, h, w, dtype=torch.float64)
    for b in range(images):
        for n in range(objects):
            found = [
                layer[i, head, :, token].view(h, w)
                for layer in layers
                for i, row in enumerate(rows)
                if row is not None and row.image == b
                for token in row.columns[n]
                for head in range(layer.shape[1])
            ]
            if found:
                result[b, n] = torch.stack(found).mean(dim=0)
    return result


def captured(net: nn.Module, x: Tensor, rows: Sequence[TokenRow | None], objects: int, images: int):
    capture = CrossAttentionCapture(net, objects, images)
    with capture.attached():
        capture.begin((x.shape[-2], x.shape[-1]))
        capture.read(rows)
        output = forward(net, x)
    return output, capture.maps()


def probabilities(q: Tensor, k: Tensor, heads: int, scale: float, columns: Sequence[Sequence[int]]) -> Tensor:
    """Of one row, the mean over each object's tokens."""
    tokens = torch.zeros(1, len(k), len(columns))
    for number, own in enumerate(columns):
        tokens[0, list(own), number] = 1
    counts = torch.tensor([[max(len(own), 1)] for own in columns])
    return token_probabilities(q[None], k[None], heads, scale, tokens)[0] / counts


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


ONE_TOKEN = [None, TokenRow(0, [[2], [5]])]
TWO_TOKENS = [None, TokenRow(0, [[2, 3], [5, 6]])]
BATCH = [None, None, TokenRow(0, [[1], [2]]), TokenRow(1, [[4], [6]])]
COND_FIRST = [TokenRow(0, [[1]]), None]
# An image with two prompts joined by AND has several conditional rows; each may lack an object.
AND = [None, TokenRow(0, [[2], []]), TokenRow(0, [[], [4]]), None, TokenRow(1, [[3], [5]]), TokenRow(1, [[1], []])]
CASES = {"one token": ONE_TOKEN, "two tokens": TWO_TOKENS, "batch": BATCH, "cond first": COND_FIRST, "and": AND}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", CASES.values(), ids=CASES.keys())
def test_maps_are_the_explicit_softmax(explicit, size: tuple[int, int], rows: list[TokenRow | None]) -> None:
    x = normal(len(rows), 4, *size, seed=3)
    plain, log = explicit(x)
    expected = expected_maps(log, size, rows)
    output, maps = captured(unet(), x, rows, expected.shape[1], expected.shape[0])
    assert (output - plain).abs().max() < 1e-4, "the explicit processor computes the same network"
    assert maps.shape == expected.shape and maps.dtype == torch.float32 and maps.device.type == "cpu"
    assert ((maps - expected).abs() / expected).max() < 2e-5
    # The maps say something: they vary over the picture and between objects by far more than the tolerance.
    assert (maps.amax(dim=(-2, -1)) / maps.amin(dim=(-2, -1))).min() > 1.1


def test_an_object_that_no_row_has_is_zero_and_nowhere(explicit) -> None:
    rows = [None, None, TokenRow(0, [[1], []]), TokenRow(1, [[4], [6]])]
    _, maps = captured(unet(), normal(4, 4, 16, 16, seed=4), rows, 2, 2)
    assert maps[0, 1].abs().max() == 0
    assert maps[0, 0].min() > 0 and maps[1].min() > 0
    region = ObjectRegion((2, 1, 16, 16), torch.tensor([0.4, 0.7], dtype=torch.float64))
    region.observe(maps)
    assert sorted(region.strength()[0].unique().tolist()) == [0.0, 0.4]
    assert 0.7 in region.strength()[1].unique().tolist()


def test_several_calls_of_a_step_are_averaged(explicit) -> None:
    """A host may run the rows of a batch one after another."""
    rows, x = BATCH, normal(4, 4, 16, 24, seed=5)
    context = normal(4, TOKENS, TEXT, seed=2)
    _, together = captured(unet(), x, rows, 2, 2)
    capture = CrossAttentionCapture(unet(), 2, 2)
    with capture.attached():
        capture.begin((16, 24))
        for i in range(4):
            capture.read(rows[i : i + 1])
            unet()(x[i : i + 1], torch.tensor(300.0), encoder_hidden_states=context[i : i + 1])
        apart = capture.maps()
        assert ((apart - together).abs() / together).max() < 1e-5
        capture.begin((16, 24))
        assert capture.maps() is None, "a new step starts from nothing"


def test_rows_of_another_batch_size_are_not_read() -> None:
    _, maps = captured(unet(), normal(3, 4, 16, 16, seed=6), ONE_TOKEN, 2, 1)
    assert maps is None
    with pytest.raises(RuntimeError):
        ObjectRegion((1, 1, 16, 16), [0.7, 0.7]).observe(maps)


def test_without_a_quarter_layer_there_are_no_maps() -> None:
    capture = CrossAttentionCapture(unet(), 1, 1)
    with capture.attached():
        capture.begin((1024, 8))
        capture.read(COND_FIRST)
        forward(unet(), normal(2, 4, 16, 16, seed=7))
    assert capture.maps() is None
    bare = CrossAttentionCapture(LdmUNet(), 1, 1)
    assert bare.layers == 0
    assert CrossAttentionCapture(unet(), 1, 1).layers == len(cross_attentions(unet())) == 10


@pytest.mark.parametrize("size", SIZES)
def test_the_networks_output_is_the_same_bits(size: tuple[int, int]) -> None:
    x = normal(4, 4, *size, seed=8)
    plain = forward(unet(), x)
    output, maps = captured(unet(), x, BATCH, 2, 2)
    assert torch.equal(output, plain)
    assert maps is not None
    # Attached, but nothing to read.
    capture = CrossAttentionCapture(unet(), 2, 2)
    with capture.attached():
        capture.begin(size)
        assert torch.equal(forward(unet(), x), plain)
    assert capture.maps() is None


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_hooks_go_however_the_block_is_left(error: type[BaseException] | None) -> None:
    net, before = unet(), hooks(unet())
    capture = CrossAttentionCapture(net, 2, 2)
    assert hooks(net) == before
    with pytest.raises(error) if error else nullcontext(), capture.attached():
        assert hooks(net) == before + 3 * capture.layers + 1
        capture.begin((16, 16))
        capture.read(BATCH)
        if error:
            # In the middle of the network, between the queries of a layer that is read and its keys.
            layer = next(m for name, m in cross_attentions(net).items() if name.startswith("down_blocks.2"))
            handle = layer.to_k.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(error()))
            try:
                forward(net, normal(4, 4, 16, 16, seed=9))
            finally:
                handle.remove()
    assert hooks(net) == before
    assert not capture._queries and capture._text is None, "no tensor is kept alive"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_maps(dtype: torch.dtype) -> None:
    q, k = (8 * normal(24, 6, seed=10)).to(dtype), normal(TOKENS, 6, seed=11).to(dtype)
    columns = [[1], [2, 6], []]
    found = probabilities(q, k, 2, 3**-0.5, columns)
    assert found.dtype == torch.float32 and found.shape == (3, 24)
    expected = torch.zeros(3, 24, dtype=torch.float64)
    for head in (slice(0, 3), slice(3, 6)):
        softmax = (q[:, head].double() @ k[:, head].double().T / 3**0.5).softmax(dim=1)
        for n, tokens in enumerate(columns):
            for token in tokens:
                expected[n] += softmax[:, token] / len(tokens) / 2
    assert (found - expected).abs().max() < 1e-6
    # And through a network in that precision: the layers' own q and k are in half, their softmax is not.
    layer = nn.Module()
    layer.attn2 = nn.Module()
    layer.attn2.to_q, layer.attn2.to_k = nn.Linear(6, 6, dtype=dtype), nn.Linear(6, 6, dtype=dtype)
    layer.attn2.heads, layer.attn2.scale = 2, 3**-0.5
    capture = CrossAttentionCapture(layer, 1, 1)
    with capture.attached():
        capture.begin((16, 24))
        capture.read([TokenRow(0, [[3]])])
        queries, keys = layer.attn2.to_q(q[None]), layer.attn2.to_k(k[None])
    maps = capture.maps()
    assert maps.dtype == torch.float32 and maps.shape == (1, 1, 4, 6)
    assert torch.equal(maps.flatten(), probabilities(queries[0], keys[0], 2, 3**-0.5, [[3]])[0])


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 49), (104, 152), (5, 9), (1, 2)])
def test_the_quarter_grid_is_two_strided_convolutions(size: tuple[int, int]) -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    assert quarter_grid(*size) == conv(conv(torch.zeros(1, 1, *size))).shape[-2:]


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 49), (5, 9), (1, 2)])
def test_a_halved_grid_is_so_many_strided_convolutions(size: tuple[int, int]) -> None:
    conv, x = nn.Conv2d(1, 1, 3, stride=2, padding=1), torch.zeros(1, 1, *size)
    for halvings in range(4):
        assert halved_grid(*size, halvings) == x.shape[-2:]
        x = conv(x)


@pytest.mark.parametrize(("halvings", "layers"), [(0, 3), (1, 3), (2, 3), (3, 1)])
@pytest.mark.parametrize("size", [(16, 24), (33, 49)])
def test_maps_are_those_of_the_layers_after_so_many_halvings(
    explicit, size: tuple[int, int], halvings: int, layers: int
) -> None:
    x = normal(2, 4, *size, seed=12)
    _, log = explicit(x)
    grid = halved_grid(*size, halvings)
    there = [p for p in log.values() if p.shape[2] == grid[0] * grid[1]]
    capture = CrossAttentionCapture(unet(), 2, 1, halvings)
    with capture.attached():
        capture.begin(size)
        capture.read(ONE_TOKEN)
        forward(unet(), x)
    maps = capture.maps()
    assert len(there) == layers and maps is not None and maps.shape == (1, 2, *grid)
    for number, column in enumerate((2, 5)):
        expected = torch.stack([layer[1, :, :, column] for layer in there]).mean(dim=(0, 1)).view(grid)
        assert ((maps[0, number] - expected).abs() / expected).max() < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_probabilities_are_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    """Hosts sample in autocast, which would multiply the queries and keys in half precision."""
    q, k = (2 * normal(n, 16, seed=n).to(dtype) for n in (20, TOKENS))
    expected = probabilities(q.double(), k.double(), 2, 0.35, [[1], [2, 3], []])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = probabilities(q, k, 2, 0.35, [[1], [2, 3], []])
    assert found.dtype == torch.float32 and float(found[2].abs().max()) == 0
    torch.testing.assert_close(found, expected.float(), atol=1e-7, rtol=1e-5)
