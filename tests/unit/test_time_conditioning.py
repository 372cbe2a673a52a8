"""Per-pixel time conditioning against the naive computation, on the diffusers and the ldm layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.ldm_unet import LdmUNet, ResBlock, sinusoid
from torch import Tensor, nn

from asyndm_ext.model import pieces, unet_time
from asyndm_ext.model.timesteps import TimestepTable, timestep_embedding
from asyndm_ext.model.unet_time import UNetTimeConditioning, UnsupportedModel

TEXT = 12
LABELS = 10
RELATIVE = 2e-6
SIZES = [(16, 16), (16, 24), (33, 49), (17, 10)]


@cache
def diffusers_unet() -> nn.Module:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return (
        diffusers.UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 16, 32, 32),
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            layers_per_block=1,
            cross_attention_dim=TEXT,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        .eval()
        .requires_grad_(False)
    )


@cache
def ldm_unet(labels: int | None = None) -> nn.Module:
    torch.manual_seed(1)
    return LdmUNet(labels=labels).eval().requires_grad_(False)


@pytest.fixture(autouse=True, scope="module", params=["whole", "in pieces"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the rows get to the pixels, whatever the size of the feature map."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (pieces, unet_time):
            patch.setattr(module, "fits", lambda *_: request.param == "whole")
        yield request.param


class Net:
    """One of the layouts behind one signature, and its naive per-pixel counterpart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unet = {"diffusers": diffusers_unet, "ldm": ldm_unet, "sdxl": partial(ldm_unet, LABELS)}[name]()
        self.time_mlp = self.unet.time_embedding if name == "diffusers" else self.unet.time_embed
        if name == "diffusers":
            from diffusers.models.resnet import ResnetBlock2D

            self.blocks = [m for m in self.unet.modules() if isinstance(m, ResnetBlock2D)]
        else:
            self.blocks = [m for m in self.unet.modules() if isinstance(m, ResBlock)]

    def __call__(self, x: Tensor, timestep: float, y: Tensor | None = None, prompts: Sequence[int] = ()) -> Tensor:
        """``prompts``: which text each row has, where it is not row by row the next one."""
        t = torch.full((len(x),), timestep)
        if self.name == "diffusers":
            return self.unet(x, t, encoder_hidden_states=text(prompts or range(len(x)))).sample
        return self.unet(x, t, y) if self.name == "sdxl" else self.unet(x, t)

    def extra(self, rows: int) -> dict[str, Tensor]:
        return {"y": normal(rows, LABELS, seed=20) * 3} if self.name == "sdxl" else {}

    def naive(self, x: Tensor, maps: Tensor, monkeypatch: pytest.MonkeyPatch, y: Tensor | None = None) -> Tensor:
        """Every pixel's timestep embedded, every pixel's embedding projected. ``maps`` ``(N,H,W)``, one per row."""
        n, height, width = maps.shape
        emb = self.time_mlp(sinusoid(maps, 16)).view(n, height, width, -1)
        if y is not None:
            emb = emb + self.unet.label_emb(y)[:, None, None]
        block_forward = naive_diffusers_block if self.name == "diffusers" else naive_ldm_block
        with monkeypatch.context() as patch:
            for block in self.blocks:
                patch.setattr(block, "forward", partial(block_forward, block, emb))
            kwargs = {} if y is None else {"y": y}
            return self(x, 500.0, **kwargs)


def sampled(emb: Tensor, size: torch.Size) -> Tensor:
    """Every factor-th row and column of ``(N,H,W,D)``, for the factor that leaves a feature map of this size."""
    for factor in (1, 2, 4, 8):
        rows = emb[:, ::factor, ::factor]
        if rows.shape[1:3] == size:
            return rows
    raise AssertionError(f"no factor takes {tuple(emb.shape[1:3])} to {tuple(size)}")


def naive_ldm_block(block: nn.Module, emb: Tensor, x: Tensor, _: Tensor) -> Tensor:
    h = block.in_layers(x)
    h = h + block.emb_layers(sampled(emb, h.shape[-2:])).permute(0, 3, 1, 2)
    return block.skip_connection(x) + block.out_layers(h)


def naive_diffusers_block(block: nn.Module, emb: Tensor, x: Tensor, _: Tensor) -> Tensor:
    silu = torch.nn.functional.silu
    h = block.conv1(silu(block.norm1(x)))
    h = h + block.time_emb_proj(silu(sampled(emb, h.shape[-2:]))).permute(0, 3, 1, 2)
    h = block.conv2(silu(block.norm2(h)))
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + h


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(prompts: Sequence[int]) -> Tensor:
    return torch.stack([normal(7, TEXT, seed=30 + number) for number in prompts])


def timestep_maps(images: int, size: tuple[int, int], seed: int = 40) -> Tensor:
    """``(B,1,H,W)``: a few whole and quarter timesteps per image, different ones in each, pixels at random."""
    generator = torch.Generator().manual_seed(seed)
    choices = torch.randint(0, 4 * 999, (images, 9), generator=generator).double() / 4
    index = torch.randint(0, 9, (images, *size), generator=generator)
    return torch.stack([choices[b][index[b]] for b in range(images)]).unsqueeze(1)


def conditioned(net: Net, x: Tensor, table: TimestepTable | None, rows: Sequence[int], **extra: Any) -> Tensor:
    time = UNetTimeConditioning(net.unet)
    with time.attached():
        time.use(table, rows)
        result = net(x, 500.0, **extra)
        assert time.calls == (0 if table is None else len(net.blocks))
    return result


def close(found: Tensor, expected: Tensor, tolerance: float = RELATIVE) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < tolerance, f"{difference:.2e} relative"


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.fixture(params=["diffusers", "ldm", "sdxl"])
def net(request: pytest.FixtureRequest) -> Net:
    return Net(request.param)


# -- the table


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.25, 1.0]), st.data())
def test_a_table_holds_each_images_distinct_timesteps(images: int, h: int, w: int, quantum: float, data) -> None:
    numbers = data.draw(st.lists(st.floats(0, 999), min_size=images * h * w, max_size=images * h * w))
    t = torch.tensor(numbers, dtype=torch.float64).view(images, 1, h, w)
    table = TimestepTable.from_map(t, quantum)
    assert sum(table.counts) == len(table.values)
    for b in range(images):
        own = table.values[table.offsets()[b] : table.offsets()[b] + table.counts[b]]
        rounded = [round(value / quantum) * quantum for value in t[b].flatten().tolist()]  # Python: half to even
        assert own[table.index[b]].flatten().tolist() == rounded
        assert own.tolist() == sorted(set(rounded))


def test_ties_round_to_even() -> None:
    table = TimestepTable.from_map(torch.tensor([[[[0.5, 1.5, 2.5, 997.5]]]]), 1.0)
    assert table.values.tolist() == [0.0, 2.0, 998.0]
    assert table.index.flatten().tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 49), (12, 9), (9, 10), (5, 3)])
def test_feature_maps_see_every_factor_th_pixel(size: tuple[int, int]) -> None:
    t = torch.arange(size[0] * size[1], dtype=torch.float64).view(1, 1, *size)
    table = TimestepTable.from_map(t, 1.0)
    for factor in (1, 2, 4, 8):
        expected = t[0, 0, ::factor, ::factor]
        index = table.index_at(*expected.shape)
        assert torch.equal(table.values[index[0]], expected), factor


@pytest.mark.parametrize("dim", [16, 320])
def test_the_embedding_is_the_networks_own(dim: int) -> None:
    t = torch.tensor([0.0, 0.25, 1.0, 500.5, 999.0])
    assert (timestep_embedding(t, dim) - sinusoid(t, dim)).abs().max() < 2e-4
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.equal(timestep_embedding(t, dim), theirs)


# -- the network


@pytest.mark.parametrize("size", SIZES)
def test_a_uniform_table_is_the_scalar(net: Net, size: tuple[int, int]) -> None:
    x, rows = normal(4, 4, *size, seed=2), [0, 1, 0, 1]
    extra = net.extra(4)
    table = TimestepTable.from_map(torch.full((2, 1, *size), 321.0), 1.0)
    assert table.counts == (1, 1)
    expected = net(x, 321.0, **extra)
    close(conditioned(net, x, table, rows, **extra), expected)
    assert (net(x, 500.0, **extra) - expected).abs().max() > 1e-3, "the nominal timestep is another one"


@pytest.mark.parametrize("rows", [[0], [0, 0], [0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0]])
@pytest.mark.parametrize("size", SIZES)
def test_a_map_is_the_naive_computation(
    net: Net, size: tuple[int, int], rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, extra = normal(len(rows), 4, *size, seed=3), net.extra(len(rows))
    maps = timestep_maps(max(rows) + 1, size)
    expected = net.naive(x, maps[rows, 0].float(), monkeypatch, **extra)
    found = conditioned(net, x, TimestepTable.from_map(maps, 0.25).to(x.device), rows, **extra)
    close(found, expected)
    # The comparison can fail: it notices when images or pixels change places.
    if len(set(rows)) > 1:
        swapped = conditioned(net, x, TimestepTable.from_map(maps.flip(0), 0.25).to(x.device), rows, **extra)
        assert (swapped - expected).abs().max() > 1e-3
    shifted = conditioned(net, x, TimestepTable.from_map(maps.roll(1, -1), 0.25).to(x.device), rows, **extra)
    assert (shifted - expected).abs().max() > 1e-3


def test_labels_of_each_row_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    net, size, rows = Net("sdxl"), (16, 24), [0, 0]
    x, maps = normal(1, 4, *size, seed=4).repeat(2, 1, 1, 1), timestep_maps(1, size)
    y = normal(2, LABELS, seed=5) * 3
    table = TimestepTable.from_map(maps, 0.25)
    found = conditioned(net, x, table, rows, y=y)
    assert (found[0] - found[1]).abs().max() > 1e-2, "rows differ in their label only"
    for row in (0, 1):
        alone = net.naive(x[row : row + 1], maps[:, 0].float(), monkeypatch, y=y[row : row + 1])
        close(found[row : row + 1], alone)
    same = conditioned(net, x, table, rows, y=y[:1].repeat(2, 1))
    close(same[1:], found[:1])


def test_an_image_does_not_depend_on_who_shares_its_batch(net: Net) -> None:
    size, maps = (16, 24), timestep_maps(2, (16, 24))
    x, extra = normal(2, 4, *size, seed=6), net.extra(2)
    together = conditioned(net, x, TimestepTable.from_map(maps, 0.25).to(x.device), [0, 1], **extra)
    for b in (0, 1):
        own = {name: value[b : b + 1] for name, value in extra.items()}
        table = TimestepTable.from_map(maps[b : b + 1], 0.25)
        alone = conditioned(net, x[b : b + 1], table, [0], prompts=[b], **own)
        close(together[b : b + 1], alone)


def test_without_a_table_the_network_is_untouched(net: Net) -> None:
    x, extra = normal(2, 4, 17, 10, seed=7), net.extra(2)
    before = hooks(net.unet)
    plain = net(x, 500.0, **extra)
    time = UNetTimeConditioning(net.unet)
    assert hooks(net.unet) == before
    with time.attached():
        assert hooks(net.unet) > before
        assert torch.equal(net(x, 500.0, **extra), plain)
        time.use(TimestepTable.from_map(timestep_maps(1, (17, 10)), 0.25), [0, 0])
        assert not torch.equal(net(x, 500.0, **extra), plain)
        time.use(None, ())
        assert torch.equal(net(x, 500.0, **extra), plain)
        time.use(TimestepTable.from_map(timestep_maps(1, (17, 10)), 0.25), [0, 0])
    assert hooks(net.unet) == before
    assert time.table is None and time._embedded is None, "no tensor is kept alive"
    assert torch.equal(net(x, 500.0, **extra), plain)


def test_hooks_go_also_when_the_model_fails(net: Net) -> None:
    before, time = hooks(net.unet), UNetTimeConditioning(net.unet)
    x, extra = normal(1, 4, 16, 16, seed=8), net.extra(1)
    plain = net(x, 500.0, **extra)
    with pytest.raises(KeyboardInterrupt), time.attached():
        time.use(TimestepTable.from_map(timestep_maps(1, (16, 16)), 0.25), [0])
        raise KeyboardInterrupt
    assert hooks(net.unet) == before

    def fail(*_: object) -> None:
        raise MemoryError

    handle = net.blocks[2].register_forward_hook(fail)
    try:
        with pytest.raises(MemoryError), time.attached():
            time.use(TimestepTable.from_map(timestep_maps(1, (16, 16)), 0.25), [0])
            net(x, 500.0, **extra)
    finally:
        handle.remove()
    assert hooks(net.unet) == before
    assert torch.equal(net(x, 500.0, **extra), plain)
    # The next run starts clean.
    table = TimestepTable.from_map(torch.full((1, 1, 16, 16), 500.0), 1.0)
    close(conditioned(net, x, table, [0], **extra), plain)


@pytest.mark.parametrize(("batch", "rows"), [(2, [0]), (1, [0, 0]), (4, [0, 0]), (2, [0, 0, 0])])
def test_a_wrong_number_of_rows_is_an_error(net: Net, batch: int, rows: list[int]) -> None:
    x, extra = normal(batch, 4, 16, 16, seed=9), net.extra(batch)
    table = TimestepTable.from_map(timestep_maps(1, (16, 16)), 0.25)
    with pytest.raises(RuntimeError):
        conditioned(net, x, table, rows, **extra)


def counted(module: nn.Module, log: list[int]) -> Callable[[], None]:
    return module.register_forward_hook(lambda _, args, __: log.append(len(args[0]))).remove


def test_only_distinct_timesteps_are_embedded(net: Net) -> None:
    size = (32, 24)
    t = torch.full((2, 1, *size), 700.0)
    t[0, :, :16], t[0, :, :4, :4], t[1, :, :3] = 650.25, 0.0, 600.0
    table = TimestepTable.from_map(t, 0.25)
    assert table.counts == (3, 2)
    x, extra = normal(4, 4, *size, seed=10), net.extra(4)
    embedded: list[int] = []
    projected: list[list[int]] = [[] for _ in net.blocks]
    projection = "time_emb_proj" if net.name == "diffusers" else "emb_layers"
    remove = [counted(net.time_mlp, embedded)]
    remove += [counted(getattr(b, projection), log) for b, log in zip(net.blocks, projected, strict=True)]
    try:
        conditioned(net, x, table, [0, 1, 0, 1], **extra)
    finally:
        for each in remove:
            each()
    # The network's own call on four rows, and once the table. Labels differ per row, so there the rows do too.
    assert embedded == [4, 5]
    if net.name == "diffusers":
        assert all(sorted(log) == [4, 5] for log in projected)
    else:
        assert projected == [[10 if net.name == "sdxl" else 5]] * len(net.blocks), "in the place of the batch's own"


def test_the_table_is_embedded_once_for_several_calls_of_a_step(net: Net) -> None:
    maps = timestep_maps(1, (16, 16))
    table, x = TimestepTable.from_map(maps, 0.25), normal(2, 4, 16, 16, seed=11)
    extra = net.extra(2)
    together = conditioned(net, x, table, [0, 0], **extra)
    time, embedded = UNetTimeConditioning(net.unet), []
    remove = counted(net.time_mlp, embedded)
    with time.attached():
        for row in (0, 1):  # a host that splits the batch
            time.use(table, [0])
            own = {name: value[row : row + 1] for name, value in extra.items()}
            close(net(x[row : row + 1], 500.0, prompts=[row], **own), together[row : row + 1])
    remove()
    assert embedded == [1, table.counts[0], 1]


# -- networks that are refused


def test_other_networks_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="Linear"):
        UNetTimeConditioning(nn.Linear(2, 2))
    empty = LdmUNet()
    for name in ("input_blocks", "middle_block", "output_blocks"):
        setattr(empty, name, nn.ModuleList())
    with pytest.raises(UnsupportedModel, match="ResBlocks"):
        UNetTimeConditioning(empty)
    scale_shift = LdmUNet()
    scale_shift.middle_block[0].use_scale_shift_norm = True
    with pytest.raises(UnsupportedModel, match="scale-shift"):
        UNetTimeConditioning(scale_shift)


@pytest.mark.parametrize(
    "options",
    [
        {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 32},
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 8},
        {"num_class_embeds": 3},
        {"resnet_time_scale_shift": "scale_shift"},
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
    ],
)
def test_diffusers_networks_with_another_time_embedding_are_refused(options: dict) -> None:
    """What they add to the embedding is not seen by the hooks: it must not be dropped in silence."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )
    with pytest.raises(UnsupportedModel):
        UNetTimeConditioning(unet)
