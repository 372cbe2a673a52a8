"""The training with lagging pixels (``asyndm_ext/world/lagging.py``) conditions pixels as sampling does."""

from __future__ import annotations

import contextlib

import pytest
import torch

pytest.importorskip("diffusers")

from support.tiny import fresh_model

from asyndm_ext.clock.curves import curve_height
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable
from asyndm_ext.model.unet_time import UNetTimeConditioning
from asyndm_ext.world import lagging
from asyndm_ext.world.model import WorldModel, load_world
from asyndm_ext.world.pool import Batch, ScenePool
from asyndm_ext.world.trainers import DiffusionTrainer, TrainSettings

SETTINGS = TrainSettings(steps=4, batch=6, pool_blocks=1, pool_refresh=2, warmup=2, seed=1)
PROMPTS = ["a shark riding a bike", "two penguins in the snow"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scenes: drawing them is what takes long."""
    monkeypatch.setattr(
        "asyndm_ext.world.trainers.ScenePool",
        lambda m, s, b, refresh, drawer=None: ScenePool(m, s, b, 8, refresh, drawer),
    )


def model() -> WorldModel:
    return fresh_model()


def network_inputs(one: WorldModel, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, one.latent_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return x, one.encode_prompt(PROMPTS[:rows])


# --- two times ------------------------------------------------------------------------------------------------------


def test_two_times_are_those_of_sampling() -> None:
    """The network's answer is that under asyndm's own conditioning, at all resolutions of its ResNet blocks."""
    one = model()
    x, context = network_inputs(one)
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, 3:10, 5:6] = 1
    mask[1, :, :, 8:] = 1
    ground, slow = torch.tensor([300, 700]), torch.tensor([500, 999])
    sides = []
    for block in one.unet.modules():
        if getattr(block, "time_emb_proj", None) is not None:
            block.conv1.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    with torch.no_grad():
        plain = one.unet(x, ground, encoder_hidden_states=context).sample
        assert set(sides) == {16, 8}
        with lagging.two_times(one.unet, ground, slow, mask):
            trained = one.unet(x, ground, encoder_hidden_states=context).sample
        after = one.unet(x, ground, encoder_hidden_states=context).sample
        time = UNetTimeConditioning(one.unet)
        timesteps = torch.where(mask > 0, slow.view(2, 1, 1, 1), ground.view(2, 1, 1, 1)).double()
        with time.attached():
            time.use(TimestepTable.from_map(timesteps, QUANTUM), [0, 1])
            sampled = one.unet(x, ground, encoder_hidden_states=context).sample
    assert torch.equal(plain, after)
    assert (trained - sampled).abs().max() < 1e-5 * sampled.abs().max()
    assert (trained - plain).abs().max() > 1e-3 * plain.abs().max()


def test_where_all_pixels_are_slow_the_gradient_is_that_of_the_slow_time() -> None:
    one = model()
    one.unet.requires_grad_(True)
    x, context = network_inputs(one, 1)
    ground, slow = torch.tensor([300]), torch.tensor([900])

    def gradient(time: torch.Tensor) -> torch.Tensor:
        one.unet.zero_grad()
        one.unet(x, time, encoder_hidden_states=context).sample.square().mean().backward()
        return one.unet.time_embedding.linear_1.weight.grad.clone()

    expected, other = gradient(slow), gradient(ground)
    with lagging.two_times(one.unet, ground, slow, torch.ones(1, 1, 16, 16)):
        found = gradient(ground)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (found - other).abs().max() > 1e-2 * expected.abs().max()


def test_hooks_go_when_the_network_fails() -> None:
    one = model()
    with (
        contextlib.suppress(MemoryError),
        lagging.two_times(one.unet, torch.tensor([1]), torch.tensor([2]), torch.ones(1, 1, 16, 16)),
    ):
        assert any(module._forward_hooks for module in one.unet.modules())
        raise MemoryError
    assert not any(module._forward_hooks for module in one.unet.modules())


# --- which pixels lag, and how far ----------------------------------------------------------------------------------


def test_lagging_pixels_are_objects_of_the_picture_or_one_of_them_or_anothers_or_none() -> None:
    number = 1200
    cover = torch.zeros(number, 2, 8, 8)
    cover[::2, 0, :2], cover[::2, 1, 2:4] = 0.5, 0.3  # even pictures: an animal and a thing in the upper half
    cover[1::2, 0, 4:6] = 0.9  # odd ones: an animal alone, below
    cover[:, 1, 7] = 0.2  # too little
    masks = lagging.lagging_pixels(cover, 16, torch.Generator().manual_seed(0))
    assert masks.shape == (number, 1, 16, 16)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    bands = masks[:, 0].unflatten(1, (8, 2))
    assert (bands == bands[:, :, :1, :1]).all(), "a cell lags as a whole"
    rows = bands[:, :, 0, 0].int()
    assert int((rows.sum(1) == 0).sum()) == number // 2, "half of the pictures have one level"
    seen: dict[str, list[str]] = {"even": [], "odd": []}
    for i, row in enumerate(rows.tolist()):
        if any(row):
            seen["odd" if i % 2 else "even"].append("".join(map(str, row)))
    both, animal, thing, below = "11110000", "11000000", "00110000", "00001100"
    assert set(seen["even"]) == {both, animal, thing, below}
    assert set(seen["odd"]) == {below, both}, "its own, which is one alone, or its neighbour's"
    share = {kind: seen["even"].count(kind) / len(seen["even"]) for kind in (both, animal, thing, below)}
    assert share[both] == pytest.approx(1 / 3, abs=0.1) and share[below] == pytest.approx(1 / 3, abs=0.1)
    assert share[animal] == pytest.approx(1 / 6, abs=0.08) and share[thing] == pytest.approx(1 / 6, abs=0.08)


def test_lags_reach_from_nothing_to_what_the_curves_give() -> None:
    slow, times = lagging.lagging_times(1000), torch.arange(1000)
    assert slow.shape == (2 * 101, 1000)
    assert (slow >= times).all() and slow.max() == 999
    progress = 1 - times.double() / 1000
    most = torch.stack([curve_height(curve, progress, 1.0) for curve in lagging.CURVES]).amax(0) * 1000
    assert (slow <= most.round()).all()
    middle = slow[:, 500]
    assert middle.min() < 530 and middle.max() > 900, "at half-finished ground up to nearly pure noise"
    assert (slow[:, 0] == 0).all(), "all pixels arrive together"


def trainer(kind: type[DiffusionTrainer] = DiffusionTrainer) -> DiffusionTrainer:
    one = model().requires_grad_(True)
    made = kind(one, SETTINGS)
    made.pool.advance(0)
    return made


def test_a_uniform_mask_gives_the_ordinary_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything lags: the loss of the slow times, noise and all. Nothing lags: the loss of the times themselves."""
    slow = torch.tensor([120, 350, 480, 640, 870, 960])

    class AtTimes(DiffusionTrainer):
        """The ordinary one, but at the slow times."""

        def levels(self, times: torch.Tensor, batch: Batch, generator: torch.Generator):
            times.copy_(slow)
            return super().levels(times, batch, generator)

    def loss(kind: type[DiffusionTrainer]) -> float:
        made = trainer(kind)
        return made.losses(made.drawn(torch.Generator().manual_seed(3)))[0].item()

    monkeypatch.setattr(lagging.LaggingTrainer, "behind", lambda *_: slow)
    monkeypatch.setattr(lagging, "lagging_pixels", lambda cover, side, g: torch.ones(len(cover), 1, side, side))
    assert loss(lagging.LaggingTrainer) == pytest.approx(loss(AtTimes), rel=1e-5)
    assert loss(AtTimes) != pytest.approx(loss(DiffusionTrainer), rel=1e-3)
    monkeypatch.setattr(lagging, "lagging_pixels", lambda cover, side, g: torch.zeros(len(cover), 1, side, side))
    assert loss(lagging.LaggingTrainer) == loss(DiffusionTrainer)


def test_the_cleanest_level_of_a_picture_is_the_ordinary_trainings() -> None:
    one = trainer(lagging.LaggingTrainer)
    times, batch = torch.tensor([50, 200, 400, 600, 800, 950]), one.pool.batch(torch.arange(6))
    ordinary = one.model.alphas_cumprod[times].float()
    lagged = 0
    for seed in range(20):
        alpha, _ = one.levels(times, batch, torch.Generator().manual_seed(seed))
        assert alpha.shape == (6, 1, 16, 16)
        assert torch.equal(alpha.amax(dim=(1, 2, 3)), ordinary)
        lagged += int((alpha.amin(dim=(1, 2, 3)) < ordinary).sum())
    assert 40 <= lagged <= 60, "half of 120, but for lags of nothing"


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path) -> None:
    def state(stops: list[int], checkpoint) -> dict[str, torch.Tensor]:
        for stop in stops:
            torch.manual_seed(99 + stop)  # the state of the global generator must not matter
            made = lagging.trainer_of(model(), SETTINGS)
            lagging.run(made, checkpoint, 9, lambda text: None, until=stop)
        return made.averaged.state_dict()

    whole, halved = state([4], tmp_path / "one.pt"), state([2, 4], tmp_path / "two.pt")
    before = model().state_dict()
    changed = {name for name, value in whole.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"text_encoder", "unet"}, "the autoencoder stays"
    for name, value in whole.items():
        assert torch.equal(value, halved[name]), name


def test_the_command_writes_weights_beside_those_it_came_from(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    model().save(tmp_path / "first")
    before = (tmp_path / "first" / "world.safetensors").read_bytes()
    out = tmp_path / "lagging"
    where = ["--from", str(tmp_path / "first"), "--out", str(out), "--device", "cpu"]
    lagging.main([*where, "--steps", "1", "--batch", "2", "--pool-blocks", "1"])
    assert (tmp_path / "first" / "world.safetensors").read_bytes() == before
    made, first = load_world(out / "weights"), load_world(tmp_path / "first")
    assert made.config == first.config
    assert any(not torch.equal(a, b) for a, b in zip(made.unet.parameters(), first.unet.parameters(), strict=True))
