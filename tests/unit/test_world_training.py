"""Training of the little world's model: its steps, stopping and going on, and what its captions say; the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asyndm_ext.world.judge import Seen, _any_content, example, verdict
from asyndm_ext.world.model import WorldConfig, WorldModel, load_world
from asyndm_ext.world.pool import CELLS, ScenePool, caption, pictures, scenes_of
from asyndm_ext.world.scenes import scene_from_seed
from asyndm_ext.world.train import AutoencoderTrainer, DiffusionTrainer, TrainSettings, export, run
from asyndm_ext.world.words import SceneText, read

SMALL = WorldConfig(text_width=32, text_layers=1, autoencoder_widths=(16, 16), unet_channels=(16, 32), unet_groups=8)
SETTINGS = TrainSettings(steps=4, batch=4, pool_blocks=2, pool_refresh=2, autoencoder_steps=4, autoencoder_batch=2)


def small_model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SMALL)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    monkeypatch.setattr("asyndm_ext.world.train.ScenePool", lambda m, s, b, refresh: ScenePool(m, s, b, 4, refresh))


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


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    def trained(stops: list[int], folder) -> tuple[WorldModel, DiffusionTrainer]:
        folder.mkdir()
        for stop in stops:
            model = small_model()
            first = AutoencoderTrainer(model, SETTINGS)
            run(first, min(stop, 4), folder / "a.pt", 9, lambda text: None)
            if stop < 4:
                continue
            first.finish()
            trainer = DiffusionTrainer(model, SETTINGS)
            run(trainer, stop - 4, folder / "d.pt", 9, lambda text: None)
        return model, trainer

    whole, halved = trained([8], tmp_path / "one")[1], trained([2, 6, 8], tmp_path / "two")[1]
    assert whole.step == halved.step == 4
    for (name, a), b in zip(whole.averaged.state_dict().items(), halved.averaged.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    before = small_model().unet.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in whole.model.unet.state_dict().items())
    export(whole, tmp_path / "out")
    again = load_world(tmp_path / "out")
    picture = again.decode(again.encode(pictures(scenes_of(1, range(1)))))
    assert picture.shape == (1, 3, 128, 128)
    assert (tmp_path / "out" / "training_log.json").is_file()


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
