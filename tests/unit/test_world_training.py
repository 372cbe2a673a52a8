"""Training of the little world's model: its steps, stopping and going on, and what its captions say; the judge."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from asyndm_ext.world import train as training
from asyndm_ext.world.blocks import CELLS, caption
from asyndm_ext.world.drawer import scenes_of
from asyndm_ext.world.judge import Seen, verdict
from asyndm_ext.world.model import WEIGHTS, WorldConfig, WorldModel, load_world
from asyndm_ext.world.pool import PicturePool, ScenePool, pictures
from asyndm_ext.world.scenes import scene_from_seed
from asyndm_ext.world.train import LOG, build_parser, chosen, export, log_of, run, train
from asyndm_ext.world.train_judge import _any_content, example
from asyndm_ext.world.trainers import (
    DecoderTrainer,
    DiffusionTrainer,
    Trainer,
    TrainSettings,
    rate_at,
    spread_times,
    step_generator,
)
from asyndm_ext.world.words import SceneText, read

SMALL = WorldConfig(text_width=32, text_layers=1, decoder_widths=(16, 16, 8), unet_channels=(16, 32), unet_groups=8)
SETTINGS = TrainSettings(steps=4, batch=4, pool_blocks=2, pool_refresh=2, decoder_steps=2, decoder_batch=2)


def small_model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SMALL)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    monkeypatch.setattr(
        "asyndm_ext.world.trainers.ScenePool",
        lambda m, s, b, refresh, drawer=None: ScenePool(m, s, b, 4, refresh, drawer),
    )
    monkeypatch.setattr("asyndm_ext.world.train.WorldModel", small_model)
    monkeypatch.setattr("asyndm_ext.world.train._CALIBRATION", 4)


def test_captions_say_what_is_there_and_leave_some_out():
    rng = np.random.default_rng(1)
    scenes = [scene_from_seed(1, i) for i in range(150)]
    told = [read(caption(scene, rng)).text for scene in scenes]
    for scene, text in zip(scenes, told, strict=True):
        content = scene.content
        assert (text.animal, text.count, text.thing, text.uses) == (
            content.animal,
            content.count,
            content.thing,
            content.uses,
        )
        assert text.ground in (None, content.ground) and text.light in (None, content.light)
    assert 0.55 < np.mean([text.ground is not None for text in told]) < 0.85
    assert 0.25 < np.mean([text.light is not None for text in told]) < 0.55


def test_the_pool_knows_where_the_words_things_are():
    pool = ScenePool(small_model(), 3, 1, 4)
    pool.advance(0)
    batch = pool.batch(torch.arange(4))
    tokenizer = small_model().tokenizer
    for row, scene in enumerate(scenes_of(3, range(4))):
        word = tokenizer.tokens[int(batch.ids[row, batch.nouns[row, 0]])]
        assert word.rstrip("s")[:3] in scene.content.animal or word in (
            "puppy",
            "puppies",
            "bunny",
            "bunnies",
            "kitten",
        )
        cells = torch.from_numpy(scene.masks[0].astype(np.float32)).unfold(0, 8, 8).unfold(1, 8, 8).mean((2, 3))
        assert torch.allclose(batch.cover[row, 0], cells, atol=1e-3)
        assert batch.cover.shape[-1] == CELLS


# --- the stages -----------------------------------------------------------------------------------------------------

STAGES = {"diffusion": DiffusionTrainer, "decoder": DecoderTrainer}


def quietly(trainer: Trainer, steps: int, checkpoint) -> Trainer:
    run(trainer, checkpoint, 9, lambda text: None, until=steps)
    return trainer


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_stopped_ends_as_one_that_was_not(stage: str, tmp_path) -> None:
    """The same losses and the same numbers, whatever torch's own generator is at."""
    whole = STAGES[stage](small_model(), SETTINGS)
    losses = [whole.train_step() for _ in range(2)]
    quietly(STAGES[stage](small_model(), SETTINGS), 1, tmp_path / "stage.pt")
    resumed = STAGES[stage](small_model(), SETTINGS)
    torch.manual_seed(99)
    told: list[str] = []
    run(resumed, tmp_path / "stage.pt", 9, told.append, until=1)
    assert told == ["stage: continuing at step 1"]
    assert resumed.train_step() == losses[1] != losses[0]
    assert resumed.step == whole.step == 2
    one, two = whole.state_dict(), resumed.state_dict()
    for part in {"model", "averaged"} & set(one):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), (part, name)


@pytest.mark.parametrize(("stage", "trained"), [("diffusion", {"text_encoder", "unet"}), ("decoder", {"autoencoder"})])
def test_each_stage_trains_its_part(stage: str, trained: set[str], tmp_path) -> None:
    model, before = small_model(), small_model().state_dict()
    quietly(STAGES[stage](model, SETTINGS), 1, tmp_path / "stage.pt")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == trained


def test_most_times_are_from_the_deciding_part_and_in_order():
    settings = TrainSettings()
    times = spread_times(torch.linspace(0, 1, 10001, dtype=torch.float64)[:-1], settings)
    assert (times.diff() > 0).all() and times[0] == 0 and 0.999 < times[-1] < 1
    low, high = settings.deciding_times
    assert ((times >= low) & (times < high)).double().mean() == pytest.approx(settings.deciding_share, abs=1e-3)


def test_the_error_counts_more_where_an_object_is_and_not_in_pure_noise():
    trainer = DiffusionTrainer(small_model(), replace(SETTINGS, object_weight=4.0))
    trainer.pool.advance(0)
    batch = trainer.pool.batch(torch.arange(4))
    alpha = torch.tensor([0.999, 0.5, 0.001, 0.999])[:, None, None, None]
    weights = trainer.weights(batch, alpha)
    assert weights.shape == (4, 1, 16, 16)
    cover = batch.cover.sum(1)
    assert cover.max() > 0.9
    assert torch.allclose(weights[0, 0], 1 + 4 * cover[0]) and torch.allclose(weights[1, 0], 1 + 4 * cover[1])
    assert weights[2].max() < 1.1
    assert torch.equal(trainer.weights(batch, alpha.expand(-1, 1, 16, 16)), weights)


def test_a_latent_is_the_picture_at_a_quarter_of_its_side_four_pixels_in_one():
    model, images = small_model(), pictures(scenes_of(2, range(3)))
    model.autoencoder.calibrate(images)
    latents = model.encode(images)
    assert latents.shape == (3, 12, 16, 16)
    blocks = images.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    small = model.autoencoder.small(latents)
    assert torch.allclose(small, blocks, atol=1e-5)
    # One pixel of a latent is its own four of the picture's.
    latents[1, :, 5, 9] += 1
    moved = (model.autoencoder.small(latents) - small).abs() > 1e-3
    assert moved[1, :, 10:12, 18:20].all() and moved.sum() == 12
    latents[1, :, 5, 9] -= 1
    assert latents.mean().abs() < 1e-4 and abs(float(latents.std()) - 1) < 0.02


def test_the_average_follows_the_weights() -> None:
    trainer = DiffusionTrainer(small_model(), SETTINGS)
    before = trainer.averaged.unet.conv_out.weight.clone()
    trainer.train_step()
    moved = trainer.averaged.unet.conv_out.weight - before
    target = trainer.model.unet.conv_out.weight - before
    assert torch.allclose(moved, 0.9 * target, atol=1e-6)  # decay min(0.999, 1/10) at the first step


def test_rate_warms_up_then_falls() -> None:
    settings = TrainSettings(steps=1000, warmup=100, learning_rate=1.0)
    rates = [rate_at(step, settings) for step in (0, 49, 99, 100, 550, 1000, 2000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.505, 0.01, 0.01])


def test_steps_and_seeds_share_no_randomness() -> None:
    drawn = {float(torch.rand(1, generator=step_generator(seed, step))) for seed in range(3) for step in range(30)}
    assert len(drawn) == 90
    assert torch.equal(torch.rand(3, generator=step_generator(1, 2)), torch.rand(3, generator=step_generator(1, 2)))


# --- the whole ------------------------------------------------------------------------------------------------------


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_whole_training_and_one_stage_after_the_other_end_alike(tmp_path, capsys) -> None:
    """As when the decoder is trained beside the diffusion, in a process of its own."""
    whole = train(SETTINGS, tmp_path / "whole", "cpu", 9)
    assert whole.step == 4 and files(tmp_path / "whole") == {"diffusion.pt", "decoder.pt"}
    apart = tmp_path / "apart"
    assert train(SETTINGS, apart, "cpu", 9, "decoder").step == 0
    assert files(apart) == {"decoder.pt"}
    last = train(SETTINGS, apart, "cpu", 9, "diffusion")
    assert last.step == 4 and files(apart) == files(tmp_path / "whole")
    capsys.readouterr()
    again = train(SETTINGS, apart, "cpu", 9)
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, last.averaged.state_dict()[name]), name
        assert torch.equal(value, again.averaged.state_dict()[name]), name
    told = ["diffusion: continuing at step 4", "decoder: continuing at step 2"]
    assert capsys.readouterr().out.split("\n")[:2] == told
    export(whole, tmp_path / "out")
    assert files(tmp_path / "out") == {"world.safetensors", "config.json", "training_log.json"}
    shipped = load_world(tmp_path / "out")
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(shipped.state_dict()[name], value.half().float()), name
    picture = shipped.decode(shipped.encode(pictures(scenes_of(1, range(1)))))
    assert picture.shape == (1, 3, 128, 128)


def test_as_many_steps_as_fit_into_the_time(tmp_path, monkeypatch) -> None:
    """A step takes 2 s on this clock, so 100 s are 50 steps, though 3 were planned, or 500."""
    for name, value in (("_PACED", 5), ("_REPLANNED", 20)):
        monkeypatch.setattr(f"asyndm_ext.world.train.{name}", value)
    for planned in (10, 500):
        now = [0.0]
        monkeypatch.setattr("asyndm_ext.world.train.time.monotonic", lambda now=now: now[0])

        class Steady:
            step, planned = 0, 10

            def plan(self, steps: int) -> None:
                self.planned = steps

            def train_step(self) -> torch.Tensor:
                self.step += 1
                now[0] += 2.0  # noqa: B023
                return torch.tensor(1.0)

            def state_dict(self) -> dict[str, int]:
                return {"step": self.step}

        trainer, told = Steady(), []
        trainer.planned = planned
        run(trainer, tmp_path / f"{planned}.pt", 9, told.append, within=100)
        assert trainer.step == trainer.planned == 50
        assert "2000.0 ms a step, so 50 steps in all" in told[0]


def test_the_decoder_sees_all_of_the_pictures_that_are_kept() -> None:
    pool = PicturePool(torch.device("cpu"), 5, 2, kept=3)
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([pool.at(0, generator) for _ in range(20)]).unique(dim=0)
    assert torch.equal(first, pictures(scenes_of(5, range(6))).unique(dim=0))
    later = PicturePool(torch.device("cpu"), 5, 2, kept=3)
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    pool.at(PicturePool.REFRESH, generator)
    assert torch.equal(pool.at(50, one), later.at(50, other)), "what is there depends on the step alone"
    assert torch.equal(PicturePool(torch.device("cpu"), 5, 2).at(3, one), pictures(scenes_of(5, range(6, 8))))


def test_options() -> None:
    assert chosen(build_parser().parse_args([]), TrainSettings()) == TrainSettings()
    line = "--steps 9 --batch 256 --exchanged 0.5 --bfloat16 --channels-last --seed 3 --pool-blocks 2 --pool-refresh 1"
    options = build_parser().parse_args([*line.split(), "--decoder-steps", "6"])
    assert chosen(options, TrainSettings()) == TrainSettings(
        steps=9,
        batch=256,
        exchanged=0.5,
        bfloat16=True,
        channels_last=True,
        seed=3,
        pool_blocks=2,
        pool_refresh=1,
        decoder_steps=6,
    )
    assert options.export is None and options.stage is None and options.processes == 0
    assert build_parser().parse_args(["--export"]).export == WEIGHTS
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--stage", "encoder"])


def test_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    small = "--steps 1 --batch 2 --decoder-steps 1 --pool-blocks 1 --device cpu"
    training.main([*small.split(), "--out", str(tmp_path / "run"), "--export", str(tmp_path / "weights")])
    assert files(tmp_path / "run") == {"diffusion.pt", "decoder.pt"}
    assert '"steps_done": 1' in (tmp_path / "weights" / "training_log.json").read_text()
    # What there is so far.
    no_more = [*small.split(), "--steps", "0", "--decoder-steps", "0", "--out", str(tmp_path / "run")]
    training.main([*no_more, "--export", str(tmp_path / "so far")])
    assert '"steps_done": 1' in (tmp_path / "so far" / "training_log.json").read_text()
    done, so_far = load_world(tmp_path / "weights"), load_world(tmp_path / "so far")
    assert all(torch.equal(a, b) for a, b in zip(done.parameters(), so_far.parameters(), strict=True))


def test_a_training_can_begin_with_weights(tmp_path) -> None:
    """They are what a first step changes; the decoder and the colours' calibration stay."""
    torch.manual_seed(7)
    begun = WorldModel(SMALL)
    begun.autoencoder.mean.fill_(0.25)
    begun.save(tmp_path / "begun")
    told = {"steps_done": 7, "decoder": {"steps_done": 9}, "loss": [[50, 1.5, 2.0]]}
    (tmp_path / "begun" / LOG).write_text(json.dumps(told))
    stored = load_world(tmp_path / "begun").state_dict()
    settings = replace(SETTINGS, steps=1, decoder_steps=0, learning_rate=1e-6)
    trainer = train(settings, tmp_path / "run", "cpu", 9, "diffusion", source=tmp_path / "begun")
    after = trainer.model.state_dict()
    for name, value in stored.items():
        assert torch.allclose(after[name], value, atol=1e-5), name
    assert any(not torch.equal(after[name], value) for name, value in stored.items() if name.startswith("unet"))
    # The log tells of both trainings, and of the decoder's, which was the first one's; a point of a curve a line.
    trainer.curve = [[50, 0.5, 0.1], [100, 0.25, 0.05]]
    export(trainer, tmp_path / "out")
    log = log_of(tmp_path / "out")
    assert log["before"] == told and log["decoder"] == {"steps_done": 9} and log["steps_done"] == 1
    assert "    [100, 0.25, 0.05]\n" in (tmp_path / "out" / LOG).read_text()
    assert log_of(tmp_path) is None


def test_exchanged_captions_are_others(monkeypatch):
    """With all captions exchanged none reaches the network with its own picture; with none, all do."""
    for share in (0.0, 1.0):
        settings = TrainSettings(**{**vars(SETTINGS), "exchanged": share, "empty_prompts": 0.0, "batch": 16})
        trainer = DiffusionTrainer(small_model(), settings)
        trainer.pool.advance(0)
        rows = torch.randint(len(trainer.pool), (16,), generator=torch.Generator().manual_seed(5))
        seen = []
        trainer.model.text_encoder.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        trainer.losses(trainer.drawn(torch.Generator().manual_seed(5)))
        own = (seen[0] == trainer.pool.batch(rows).ids).all(1)
        assert own.all() if share == 0 else not own.all()


# --- the judge ------------------------------------------------------------------------------------------------------

SHARK = SceneText("shark", 1, "bike", True, "red", "desert", "night")


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (Seen({"shark": 1, "bike": 1}, "desert", "night", "red", True), None),
        (Seen({"shark": 2, "bike": 1}, "desert", "night", "red", True), "animal"),
        (Seen({"shark": 1, "cow": 1, "bike": 1}, "desert", "night", "red", True), "animal"),
        (Seen({"shark": 1, "bike": 2}, "desert", "night", "red", True), "thing"),
        (Seen({"shark": 1}, "desert", "night", "red", True), "thing"),
        (Seen({"shark": 1, "bike": 1}, "sea", "night", "red", True), "ground"),
        (Seen({"shark": 1, "bike": 1}, "desert", "day", "red", True), "light"),
        (Seen({"shark": 1, "bike": 1}, "desert", "night", "blue", True), "paint"),
        (Seen({"shark": 1, "bike": 1}, "desert", "night", "red", False), "uses"),
    ],
)
def test_a_verdict_names_the_point_that_is_wrong(seen, wrong):
    found = verdict(seen, SHARK)
    assert found.exact == (wrong is None)
    assert [name for name, value in vars(found).items() if value is False] == ([wrong] if wrong else [])


def test_what_the_prompt_leaves_open_cannot_be_wrong():
    assert verdict(Seen({"cat": 1}, "sea", "night", "red", True), SceneText("cat")).exact


def test_the_judges_examples_count_what_is_drawn():
    more = 0
    for i in range(40):
        content, extra = _any_content(np.random.default_rng([4, i]))
        found = example(4, i)
        things = bool(content.thing) + sum(thing is not None for _, thing in extra)
        animals = (content.count if content.animal else 0) + sum(animal is not None for animal, _ in extra)
        assert sum(found.counts) == things + animals
        more += bool(extra)
    assert more > 5
