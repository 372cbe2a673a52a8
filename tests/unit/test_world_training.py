"""Training of the little world's model: its steps, stopping and going on, and what its captions say; the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asyndm_ext.world.judge import Seen, _any_content, example, verdict
from asyndm_ext.world.model import WorldConfig, WorldModel, load_world
from asyndm_ext.world.pool import CELLS, ScenePool, caption, pictures, scenes_of
from asyndm_ext.world.scenes import scene_from_seed
from asyndm_ext.world.train import export, run
from asyndm_ext.world.trainers import DecoderTrainer, DiffusionTrainer, TrainSettings, spread_times
from asyndm_ext.world.words import SceneText, read

SMALL = WorldConfig(text_width=32, text_layers=1, decoder_widths=(16, 16, 8), unet_channels=(16, 32), unet_groups=8)
SETTINGS = TrainSettings(steps=4, batch=4, pool_blocks=2, pool_refresh=2, decoder_steps=4, decoder_batch=2)


def small_model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SMALL)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    monkeypatch.setattr("asyndm_ext.world.trainers.ScenePool", lambda m, s, b, refresh: ScenePool(m, s, b, 4, refresh))


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


@pytest.mark.parametrize("stage", [DiffusionTrainer, DecoderTrainer])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(stage, tmp_path):
    def trained(stops: list[int], folder):
        folder.mkdir()
        for stop in stops:
            trainer = stage(small_model(), SETTINGS)
            run(trainer, stop, folder / "d.pt", 9, lambda text: None)
        return trainer

    whole, halved = trained([4], tmp_path / "one"), trained([1, 3, 4], tmp_path / "two")
    assert whole.step == halved.step == 4
    for (name, a), b in zip(whole.model.state_dict().items(), halved.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    before = small_model().state_dict()
    changed = {name for name, value in whole.model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed and all(name.startswith("autoencoder") == (stage is DecoderTrainer) for name in changed)


def test_what_is_exported_is_the_average_and_can_be_loaded(tmp_path):
    trainer = DiffusionTrainer(small_model(), SETTINGS)
    for _ in range(3):
        trainer.train_step()
    export(trainer, tmp_path)
    again = load_world(tmp_path)
    for (name, a), b in zip(again.state_dict().items(), trainer.averaged.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6), name
    assert again.decode(again.encode(pictures(scenes_of(1, range(1))))).shape == (1, 3, 128, 128)
    assert (tmp_path / "training_log.json").is_file()


def test_most_times_are_from_the_deciding_part_and_in_order():
    settings = TrainSettings()
    times = spread_times(torch.linspace(0, 1, 10001, dtype=torch.float64)[:-1], settings)
    assert (times.diff() > 0).all() and times[0] == 0 and 0.999 < times[-1] < 1
    low, high = settings.deciding_times
    assert ((times >= low) & (times < high)).double().mean() == pytest.approx(settings.deciding_share, abs=1e-3)


def test_a_latent_is_the_picture_at_a_quarter_of_its_side():
    model, images = small_model(), pictures(scenes_of(2, range(3)))
    model.autoencoder.calibrate(images)
    latents = model.encode(images)
    assert latents.shape == (3, 12, 16, 16)
    blocks = images.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    assert torch.allclose(model.autoencoder.small(latents), blocks, atol=1e-5)
    assert latents.mean().abs() < 1e-4 and abs(float(latents.std()) - 1) < 0.02


def test_exchanged_captions_are_others(monkeypatch):
    """With all captions exchanged none reaches the network with its own picture; with none, all do."""
    for share in (0.0, 1.0):
        settings = TrainSettings(**{**vars(SETTINGS), "exchanged": share, "empty_prompts": 0.0, "batch": 16})
        trainer = DiffusionTrainer(small_model(), settings)
        trainer.pool.advance(0)
        rows = torch.randint(len(trainer.pool), (16,), generator=torch.Generator().manual_seed(5))
        seen = []
        trainer.model.text_encoder.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        trainer.loss(torch.Generator().manual_seed(5))
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
