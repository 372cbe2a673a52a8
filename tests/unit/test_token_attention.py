"""The attention to the text in diffusion transformers against explicit softmax, computed where the stand-ins attend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
from support import flux, mmdit
from support.dit import KINDS, NAMES, TEXT_TOKENS, DiT, normal
from torch import Tensor, nn

from asyndm_ext.bench import dit as parts
from asyndm_ext.model import softmax_sum, token_attention
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.network import time_conditioning
from asyndm_ext.model.second_attention import indicator, joint_probabilities
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.token_attention import TokenAttentionCapture
from asyndm_ext.model.transformers import layout_of
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.region.regions import ObjectRegion

SIZES = [(16, 16), (16, 24), (13, 9), (20, 12)]
Log = list[Tensor]
HOST = nn.functional.scaled_dot_product_attention


@pytest.fixture(params=NAMES)
def dit(request: pytest.FixtureRequest) -> DiT:
    return DiT(request.param)


@pytest.fixture
def explicit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Log]:
    """Runs the network with explicit softmax in float64: the joint attentions' ``(N, heads, T+L, T+L)``."""

    def run(dit: DiT, x: Tensor, **extra: Any) -> Log:
        log: Log = []

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            """``(N, heads, L, d)``"""
            logits = torch.einsum("nhqd,nhkd->nhqk", q.double(), k.double()) / q.shape[-1] ** 0.5
            weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
            weights = weights / weights.sum(dim=-1, keepdim=True)
            log.append(weights)
            return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)

        def of_mmdit(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            return attention(*(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)))

        def of_flux(q: Tensor, k: Tensor, v: Tensor, pe: Tensor | None) -> Tensor:
            return attention(flux.turned(q, pe), flux.turned(k, pe), v)

        with monkeypatch.context() as patch:
            patch.setattr(parts, "attend", of_mmdit)
            patch.setattr(parts, "attend_turned", of_flux)
            dit(x, 300.0, **extra)
        h, w = dit.grid((x.shape[-2], x.shape[-1]))
        to_text = [weights for weights in log if dit.kind.keys(weights.shape[-1], h * w)]
        assert len(to_text) == dit.attentions
        return to_text

    return run


def expected_maps(dit: DiT, log: Log, size: tuple[int, int], rows: Sequence[TokenRow | None]) -> Tensor:
    """Eq. 7's average, spelt out: over tokens, heads, layers, and the rows of an image that have the object."""
    h, w = dit.grid(size)
    images = 1 + max(row.image for row in rows if row is not None)
    objects = max(len(row.columns) for row in rows if row is not None)
    result = torch.zeros(images, objects, h, w, dtype=torch.float64)
    for b in range(images):
        for n in range(objects):
            found = [
                layer[i, head, dit.kind.text : dit.kind.text + h * w, token].view(h, w)
                for layer in log
                for i, row in enumerate(rows)
                if row is not None and row.image == b
                for token in row.columns[n]
                for head in range(layer.shape[1])
            ]
            if found:
                result[b, n] = torch.stack(found).mean(dim=0)
    return result


def captured(dit: DiT, x: Tensor, rows: Sequence[TokenRow | None], objects: int, images: int, **extra: Any) -> Tensor:
    capture = TokenAttentionCapture(dit.layout, objects, images)
    with capture.attached():
        capture.begin((x.shape[-2], x.shape[-1]))
        capture.read(rows)
        dit(x, 300.0, **extra)
        maps = capture.maps()
    assert maps is not None and maps.dtype == torch.float32 and maps.device.type == "cpu"
    return maps


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < tolerance, f"{difference:.2e} relative"


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_the_joint_softmax(dit: DiT, size: tuple[int, int], explicit: Callable[..., Log]) -> None:
    x, rows = normal(1, 4, *size, seed=1), [TokenRow(0, [[2], [0, 5], [6]])]
    found = captured(dit, x, rows, objects=3, images=1)
    expected = expected_maps(dit, explicit(dit, x), size, rows)
    assert found.shape == expected.shape
    close(found, expected)
    spread = expected.amax(dim=(-2, -1)) - expected.amin(dim=(-2, -1))
    assert float((spread / expected.mean(dim=(-2, -1))).min()) > 0.1, "maps that nothing could tell apart"


@pytest.mark.parametrize("size", SIZES[1:3])
def test_an_attention_that_is_not_torchs_gives_the_same_maps(
    dit: DiT, size: tuple[int, int], explicit: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    """xformers and the like: nothing comes by, so each layer is read once the next one is under way."""
    x, rows = normal(2, 4, *size, seed=1), [TokenRow(0, [[2], [0, 5]]), None]
    expected = expected_maps(dit, explicit(dit, x), size, rows)
    with_sums = captured(dit, x, rows, objects=2, images=1)
    for name in ("attend", "attend_turned"):
        monkeypatch.setattr(parts, name, _by_another_name(getattr(parts, name)))
    close(captured(dit, x, rows, objects=2, images=1), expected)
    close(with_sums, expected)


def _by_another_name(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The stand-in's attention with torch's function called by a name of its own."""
    code = {**attend.__globals__, "functional": SimpleNamespace(scaled_dot_product_attention=HOST)}
    return FunctionType(attend.__code__, code, argdefs=attend.__defaults__)


def test_torchs_attention_is_asked_and_no_second_one_made(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_attention, "joint_probabilities", lambda *_: pytest.fail("a second attention"))
    captured(dit, normal(1, 4, 8, 8, seed=1), [TokenRow(0, [[2], [0, 5]])], objects=2, images=1)


def test_where_the_sum_is_not_told_a_second_attention_is_made(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rows = normal(1, 4, 8, 8, seed=1), [TokenRow(0, [[2], [0, 5]])]
    with_sums = captured(dit, x, rows, objects=2, images=1)
    monkeypatch.setattr(softmax_sum, "fused_kernel", lambda *_: None)
    plain = dit(x, 300.0)
    close(captured(dit, x, rows, objects=2, images=1), with_sums.double())
    assert torch.equal(dit(x, 300.0), plain)


def test_conditional_rows_only_each_for_its_image(dit: DiT, explicit: Callable[..., Log]) -> None:
    """Image 0 has two conditions, one without the second object; the last two rows are unconditional."""
    size, prompts = (10, 14), [3, 4, 5, 6, 6]
    rows = [TokenRow(0, [[1], [2, 3]]), TokenRow(0, [[4], []]), TokenRow(1, [[0], [6]]), None, None]
    x = normal(5, 4, *size, seed=2)
    found = captured(dit, x, rows, objects=2, images=2, prompts=prompts)
    close(found, expected_maps(dit, explicit(dit, x, prompts=prompts), size, rows))


def test_an_absent_object_has_no_attention(dit: DiT) -> None:
    found = captured(dit, normal(1, 4, 8, 8, seed=3), [TokenRow(0, [[1], []])], objects=2, images=1)
    assert float(found[0, 0].min()) > 0
    assert torch.equal(found[0, 1], torch.zeros(dit.grid((8, 8))))


def test_calls_add_up_until_begin(dit: DiT, explicit: Callable[..., Log]) -> None:
    """A host that runs the batch in slices, and Heun-like solvers that call twice."""
    x, rows = normal(2, 4, 8, 12, seed=4), [TokenRow(0, [[1]]), TokenRow(1, [[5]])]
    capture = TokenAttentionCapture(dit.layout, objects=1, images=2)
    with capture.attached():
        for _ in range(2):
            capture.begin((8, 12))
            for i in range(2):
                capture.read(rows[i : i + 1])
                dit(x[i : i + 1], 300.0, prompts=[i])
        found = capture.maps()
    assert found is not None
    close(found, expected_maps(dit, explicit(dit, x), (8, 12), rows))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.references])
def test_reference_tokens_are_keys_and_no_pixels(name: str, explicit: Callable[..., Log]) -> None:
    dit, x = DiT(name), normal(1, 4, 10, 6, seed=5)
    reference = normal(1, 9, dit.net.img_in.in_features, seed=6)
    rows = [TokenRow(0, [[2], [4, 5]])]
    found = captured(dit, x, rows, objects=2, images=1, reference=reference)
    log = explicit(dit, x, reference=reference)
    assert log[0].shape[-1] == TEXT_TOKENS + (60 if dit.kind.patch == 1 else 15) + 9
    close(found, expected_maps(dit, log, (10, 6), rows))


def test_with_a_map_of_timesteps_it_sees_the_queries_of_the_map(dit: DiT, explicit: Callable[..., Log]) -> None:
    """Capture and time conditioning hook the same network."""
    x, rows = normal(1, 4, 12, 8, seed=7), [TokenRow(0, [[2], [4]])]
    maps = torch.where(normal(1, 1, 12, 8, seed=8) > 0, 800.0, 200.0).double()
    time = time_conditioning(dit.net)
    with time.attached():
        time.use(TimestepTable.from_map(maps, 0.25).to(x.device), [0])
        expected = expected_maps(dit, explicit(dit, x), (12, 8), rows)
        time.use(TimestepTable.from_map(maps, 0.25).to(x.device), [0])
        found = captured(dit, x, rows, objects=2, images=1)
    close(found, expected)
    plain = captured(dit, x, rows, objects=2, images=1)
    assert float((found - plain).abs().max() / plain.max()) > 1e-3


def test_the_networks_answer_is_untouched_and_hooks_go(dit: DiT) -> None:
    x = normal(1, 4, 8, 8, seed=9)
    plain, before = dit(x, 300.0), hooks(dit.net)
    capture = TokenAttentionCapture(dit.layout, objects=1, images=1)
    assert capture.layers == dit.attentions
    with capture.attached():
        assert hooks(dit.net) > before
        capture.begin((8, 8))
        capture.read([TokenRow(0, [[1]])])
        assert torch.equal(dit(x, 300.0), plain)
    assert hooks(dit.net) == before


def test_hooks_go_and_nothing_is_kept_after_an_error(dit: DiT) -> None:
    before = hooks(dit.net)
    block = dit.kind.inner(dit.net)
    capture = TokenAttentionCapture(dit.layout, objects=1, images=1)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = block.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of memory"), capture.attached():
            capture.begin((8, 8))
            capture.read([TokenRow(0, [[1]])])
            dit(normal(1, 4, 8, 8, seed=10), 300.0)
    finally:
        handle.remove()
    assert hooks(dit.net) == before
    assert not capture._held and not capture._sums and capture._rotation is None and capture._next is None
    assert capture._known is None
    assert capture._wanted is None and capture._found is None
    assert nn.functional.scaled_dot_product_attention is HOST


def test_rows_that_do_not_fit_give_no_map_and_the_region_says_so(dit: DiT) -> None:
    capture = TokenAttentionCapture(dit.layout, objects=1, images=1)
    with capture.attached():
        capture.begin((8, 8))
        capture.read([TokenRow(0, [[1]])])
        dit(normal(2, 4, 8, 8, seed=11), 300.0)
        assert capture.maps() is None
    with pytest.raises(RuntimeError, match="attention to the objects cannot be read"):
        ObjectRegion((1, 1, 8, 8), [0.7]).observe(capture.maps())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_in_float32(dit: DiT, dtype: torch.dtype, explicit: Callable[..., Log]) -> None:
    half = DiT(dit.name, dtype)
    x, rows = normal(1, 4, 8, 8, seed=12), [TokenRow(0, [[1], [3, 4]])]
    close(captured(half, x, rows, objects=2, images=1), expected_maps(dit, explicit(dit, x), (8, 8), rows), 0.03)


def test_a_column_beyond_the_text_is_not_read(dit: DiT) -> None:
    """Its key would be one of the picture's own tokens."""
    beyond = max(dit.kind.text, TEXT_TOKENS)
    capture = TokenAttentionCapture(dit.layout, objects=1, images=1)
    with capture.attached():
        capture.begin((8, 8))
        capture.read([TokenRow(0, [[1, beyond]])])
        dit(normal(1, 4, 8, 8, seed=16), 300.0)
        assert capture.maps() is None


def test_region_from_the_maps_is_constant_per_patch(dit: DiT) -> None:
    """What steers the clock is constant within a token, so the solver and the network agree on every pixel."""
    region = ObjectRegion((1, 1, 13, 9), [0.7])
    region.observe(captured(dit, normal(1, 4, 13, 9, seed=13), [TokenRow(0, [[1]])], objects=1, images=1))
    strength = region.strength()[0, 0]
    assert 0 < float((strength > 0).double().mean()) < 1
    side = dit.kind.patch
    for row in range(0, 13, side):
        for column in range(0, 9, side):
            assert strength[row : row + side, column : column + side].unique().numel() == 1


def test_more_objects_than_channels_of_a_head() -> None:
    q, k = normal(1, 2, 5, 4, seed=14), normal(1, 2, 9, 4, seed=15)
    columns = [[i] for i in range(9)]
    found = joint_probabilities(q, k, indicator(columns, 9, 9).unsqueeze(0))
    expected = (q[0].double() @ k[0].double().transpose(1, 2) / 2).softmax(dim=-1).mean(dim=0).T
    close(found[0], expected)


def test_register_tokens_are_refused() -> None:
    net: Any = mmdit.MMDiT()
    net.register_length = 4
    with pytest.raises(UnsupportedModel, match="register"):
        layout_of(net)


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
