"""Per-token time conditioning against the naive computation, on the layouts of SD3, SD3.5 medium and Flux."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dit import KINDS, NAMES, DiT, normal
from torch import Tensor, nn

from asyndm_ext.model import token_modulation
from asyndm_ext.model.dit_time import DiTTimeConditioning
from asyndm_ext.model.network import time_conditioning
from asyndm_ext.model.patches import PATCH, patch_constant, patch_grid
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.token_modulation import TokenModulations
from asyndm_ext.model.unet_time import UnsupportedModel

RELATIVE = 1e-5
REFERENCES = [name for name, kind in KINDS.items() if kind.references]
SIZES = [(16, 16), (16, 24), (20, 12), (13, 9), (2, 2), (1, 5)]
NOMINAL = 500.0


def timestep_maps(images: int, size: tuple[int, int], seed: int = 40) -> Tensor:
    """``(B,1,H,W)``: quarter timesteps, different ones in each image, pixels at random."""
    generator = torch.Generator().manual_seed(seed)
    choices = torch.randint(0, 4 * 999, (images, 9), generator=generator).double() / 4
    index = torch.randint(0, 9, (images, *size), generator=generator)
    return torch.stack([choices[b][index[b]] for b in range(images)]).unsqueeze(1)


def table_of(maps: Tensor) -> TimestepTable:
    return TimestepTable.from_map(maps, 0.25).to(torch.device("cpu"))


def conditioned(dit: DiT, x: Tensor, table: TimestepTable | None, rows: Sequence[int], **extra: Any) -> Tensor:
    time = time_conditioning(dit.net)
    with time.attached():
        time.use(table, rows)
        result = dit(x, NOMINAL, **extra)
        assert time.calls == (0 if table is None else dit.modulations)
    return result


def close(found: Tensor, expected: Tensor, tolerance: float = RELATIVE) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < tolerance, f"{difference:.2e} relative"


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture(autouse=True, scope="module", params=["handed over", "from outside"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the rows get to the tokens, whatever the size of the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_modulation, "fits", lambda *_: request.param == "handed over")
        yield request.param


@pytest.fixture(params=NAMES)
def dit(request: pytest.FixtureRequest) -> DiT:
    return DiT(request.param)


@pytest.mark.parametrize("may_compile", [False, True])
def test_modules_have_hooks_that_are_needed_only(
    dit: DiT, way: str, may_compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs its module's calls some time. While a network is compiled none can be added, so then they are there
    before."""
    monkeypatch.setattr(token_modulation, "may_compile", lambda: may_compile)
    give, given = TokenModulations.give, []
    monkeypatch.setattr(TokenModulations, "give", lambda *args: (given.append(1), give(*args)))
    before, time, table = hooks(dit.net), time_conditioning(dit.net), table_of(timestep_maps(1, (8, 8)))
    with time.attached():
        attached = hooks(dit.net)
        time.use(table, [0])
        assert (hooks(dit.net) > attached) == may_compile
        dit(normal(1, 4, 8, 8, seed=1), NOMINAL)
        assert (hooks(dit.net) > attached) == (may_compile or bool(given))
        assert given or way == "handed over"
    assert hooks(dit.net) == before


@pytest.mark.parametrize("size", SIZES)
def test_every_token_gets_its_own_timestep(dit: DiT, size: tuple[int, int]) -> None:
    x, maps = normal(2, 4, *size, seed=1), timestep_maps(2, size)
    found = conditioned(dit, x, table_of(maps), [0, 1])
    expected = dit.naive(x, NOMINAL, dit.of_tokens(maps))
    close(found, expected)
    least = 0.01 if dit.name in ("lumina 2", "anima") else 0.05  # their clocks go from 0 to 1 only
    assert float((expected - dit(x, NOMINAL)).abs().max()) > least * float(expected.abs().max())


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.lists(st.integers(0, 1), min_size=1, max_size=4),
    levels=st.lists(st.integers(0, 4000), min_size=1, max_size=5),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=10)
@pytest.mark.parametrize("name", NAMES)
def test_any_map_any_rows(name: str, size: tuple[int, int], rows: list[int], levels: list[int], seed: int) -> None:
    dit, x = DiT(name), normal(len(rows), 4, *size, seed=seed)
    index = torch.randint(0, len(levels), (2, 1, *size), generator=torch.Generator().manual_seed(seed))
    maps = (torch.tensor(levels, dtype=torch.float64) / 4)[index]
    found = conditioned(dit, x, table_of(maps), rows)
    close(found, dit.naive(x, NOMINAL, dit.of_tokens(maps)[rows]), 1e-5)


def test_batch_rows_take_the_map_of_their_image_and_their_own_text(dit: DiT) -> None:
    """Conditional and unconditional rows as hosts order them, with an image of two conditions."""
    rows, prompts, size = [0, 0, 1, 0, 1], [3, 4, 5, 6, 6], (10, 14)
    x, maps = normal(5, 4, *size, seed=2), timestep_maps(2, size)
    found = conditioned(dit, x, table_of(maps), rows, prompts=prompts)
    close(found, dit.naive(x, NOMINAL, dit.of_tokens(maps)[rows], prompts))


def test_an_image_does_not_depend_on_who_shares_its_batch(dit: DiT) -> None:
    x, maps = normal(3, 4, 10, 8, seed=3), timestep_maps(3, (10, 8))
    together = conditioned(dit, x, table_of(maps), [0, 1, 2], prompts=[7, 8, 9])
    alone = conditioned(dit, x[1:2], table_of(maps[1:2]), [0], prompts=[8])
    close(together[1:2], alone)


def test_without_a_table_the_network_gives_its_own_bits(dit: DiT) -> None:
    x = normal(2, 4, 12, 10, seed=4)
    plain = dit(x, NOMINAL)
    assert torch.equal(conditioned(dit, x, None, ()), plain)


def test_a_map_of_one_level_equals_the_scalar(dit: DiT) -> None:
    x = normal(2, 4, 12, 10, seed=5)
    table = table_of(torch.full((2, 1, 12, 10), NOMINAL, dtype=torch.float64))
    close(conditioned(dit, x, table, [0, 1]), dit(x, NOMINAL))


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_tokens_behind_the_picture_keep_the_scalar(name: str) -> None:
    dit, x, maps = DiT(name), normal(2, 4, 10, 14, seed=6), timestep_maps(2, (10, 14))
    reference = normal(2, 11, dit.net.img_in.in_features, seed=7)
    found = conditioned(dit, x, table_of(maps), [0, 1], reference=reference)
    close(found, dit.naive(x, NOMINAL, dit.of_tokens(maps), reference=reference))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_weights(name: str, dtype: torch.dtype, tolerance: float) -> None:
    x, maps = normal(2, 4, 12, 10, seed=8), timestep_maps(2, (12, 10))
    found = conditioned(DiT(name, dtype), x, table_of(maps), [0, 1])
    assert found.dtype == dtype
    exact = DiT(name)
    close(found.float(), exact.naive(x, NOMINAL, exact.of_tokens(maps)), tolerance)


def test_projections_run_on_the_distinct_timesteps_only(dit: DiT) -> None:
    size = (32, 32)
    x, maps = normal(2, 4, *size, seed=9), timestep_maps(2, size)
    table = table_of(maps)
    seen: list[int] = []
    layers = dit.kind.layers(dit.net)
    handles = [layer.register_forward_hook(lambda m, a, out: seen.append(len(a[0]))) for layer in layers]
    try:
        conditioned(dit, x, table, [0, 1])
    finally:
        for handle in handles:
            handle.remove()
    assert seen and set(seen) == {2 + len(table.values)}, "each runs once, on the batch's rows and the table's"
    assert len(seen) == len(layers)


def test_hooks_are_gone_after_an_error_inside_the_network(dit: DiT) -> None:
    before, x = hooks(dit.net), normal(1, 4, 8, 8, seed=10)
    plain = dit(x, NOMINAL)
    block = dit.kind.gated(dit.net)
    time = time_conditioning(dit.net)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = block.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of memory"), time.attached():
            assert hooks(dit.net) > before + 1
            time.use(table_of(timestep_maps(1, (8, 8))), [0])
            dit(x, NOMINAL)
    finally:
        handle.remove()
    assert hooks(dit.net) == before
    assert time.table is None
    assert torch.equal(dit(x, NOMINAL), plain)


def test_a_call_after_an_error_starts_afresh(dit: DiT) -> None:
    x, maps = normal(1, 4, 8, 8, seed=11), timestep_maps(1, (8, 8))
    block = dit.kind.gated(dit.net)
    time = time_conditioning(dit.net)

    def fail(*_: object) -> None:
        raise RuntimeError("NaN")

    with time.attached():
        handle = block.register_forward_pre_hook(fail)
        time.use(table_of(maps), [0])
        with pytest.raises(RuntimeError, match="NaN"):
            dit(x, NOMINAL)
        handle.remove()
        time.use(None, ())
        plain = dit(x, NOMINAL)
        time.use(table_of(maps), [0])
        found = dit(x, NOMINAL)
    assert torch.equal(plain, dit(x, NOMINAL))
    close(found, dit.naive(x, NOMINAL, dit.of_tokens(maps)))


def test_wrong_number_of_rows_is_an_error(dit: DiT) -> None:
    with pytest.raises(RuntimeError, match="ran on 3 rows where 2 were expected"):
        conditioned(dit, normal(3, 4, 8, 8, seed=12), table_of(timestep_maps(2, (8, 8))), [0, 1])


def test_a_latent_smaller_than_the_map_is_an_error(dit: DiT) -> None:
    few, many = (dit.grid((side, side)) for side in (8, 10))
    filled = -(-few[0] * few[1] // 8) * 8 if dit.name == "z-image" else few[0] * few[1]
    with pytest.raises(RuntimeError, match=f"{filled} image tokens where the map has {many[0] * many[1]}"):
        conditioned(dit, normal(1, 4, 8, 8, seed=13), table_of(timestep_maps(1, (10, 10))), [0])


def test_a_layer_that_the_host_goes_around(dit: DiT, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused kernel that reads the layer's weights, say: its neutral modulation must not pass for the real one."""
    mlp: Any = dit.kind.gated(dit.net)
    x, maps = normal(1, 4, 8, 8, seed=14), timestep_maps(1, (8, 8))

    class Fused(type(mlp)):  # type: ignore[misc]
        def __call__(self, x: Tensor) -> Tensor:
            return self.forward(x)

    monkeypatch.setattr(mlp, "__class__", Fused)
    if way == "handed over" and isinstance(time_conditioning(dit.net), DiTTimeConditioning):  # the block applies it
        close(conditioned(dit, x, table_of(maps), [0]), dit.naive(x, NOMINAL, dit.of_tokens(maps)))
        return
    with pytest.raises(RuntimeError, match="left out layers"):
        conditioned(dit, x, table_of(maps), [0])


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.blocks is not None])
def test_a_block_that_the_host_skips_is_none(name: str) -> None:
    """Skip-layer guidance leaves whole blocks out. (The modulations of Chroma and FLUX.2 are made before anybody
    knows.)"""
    dit = DiT(name)
    x, maps = normal(1, 4, 8, 8, seed=15), timestep_maps(1, (8, 8))
    assert dit.kind.blocks is not None
    blocks = dit.kind.blocks(dit.net)
    time, skipped = time_conditioning(dit.net), blocks[1]
    del blocks[1]
    try:
        with time.attached():
            time.use(table_of(maps), [0])
            found = dit(x, NOMINAL)
            assert time.calls == dit.modulations
        close(found, dit.naive(x, NOMINAL, dit.of_tokens(maps)))
    finally:
        blocks.insert(1, skipped)


def test_modulation_without_shifts_is_refused() -> None:
    dit = DiT("sd3")
    block: Any = dit.net.joint_blocks[1].x_block
    block.scale_mod_only = True
    try:
        with pytest.raises(UnsupportedModel, match="without shifts"):
            time_conditioning(dit.net)
    finally:
        del block.scale_mod_only


# -- maps on patches


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_patch_constant_is_each_patchs_mean(height: int, width: int, seed: int) -> None:
    strength = normal(2, 1, height, width, seed=seed).double()
    found = patch_constant(strength)
    assert found.shape == strength.shape
    for row in range(0, height, PATCH):
        for column in range(0, width, PATCH):
            patch = (..., slice(row, row + PATCH), slice(column, column + PATCH))
            mean = strength[patch].mean(dim=(-2, -1), keepdim=True).expand_as(found[patch])
            torch.testing.assert_close(found[patch], mean, rtol=0, atol=1e-15)
    torch.testing.assert_close(patch_constant(found), found, rtol=0, atol=1e-15)


def test_patch_grid_rounds_up() -> None:
    assert [patch_grid(h, w) for h, w in ((64, 96), (65, 97), (1, 2))] == [(32, 48), (33, 49), (1, 1)]
