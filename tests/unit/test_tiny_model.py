"""The embedded model: its parts, its training, and what the shipped weights draw."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from asyndm_ext.embedded.attention_loss import attention_loss, word_attention
from asyndm_ext.embedded.latent_pool import whereabouts
from asyndm_ext.embedded.model import WEIGHTS, TinyConfig, TinyModel, load_tiny
from asyndm_ext.embedded.scenes import scene_from_seed
from asyndm_ext.embedded.train import DiffusionTrainer, TrainSettings, rate_at, spread_times, train_autoencoder
from asyndm_ext.embedded.training_check import colour_shares, sample, to_bytes

SMALL = TrainSettings(steps=8, batch=2, warmup=2, pool_blocks=1, pool_refresh=2)


@pytest.fixture(autouse=True, scope="module")
def few_threads():
    """Small tensors: more threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(seed=0):
    torch.manual_seed(seed)
    return TinyModel().eval()


@pytest.fixture(scope="module")
def shipped():
    return load_tiny()


# The parts


def test_encode_prompt_gives_a_row_per_word_and_zeros_for_padding():
    context = fresh().encode_prompt(["a red circle", ""])
    assert context.shape == (2, 24, 96) and context.dtype == torch.float32
    assert (context[0, 5:] == 0).all() and (context[1, 2:] == 0).all()
    assert (context[0, :5].abs().sum(dim=-1) > 1).all()


def test_prompts_do_not_see_each_other():
    model = fresh()
    alone = model.encode_prompt(["a red circle"])
    together = model.encode_prompt(["three blue stars and a green square on a white background", "a red circle"])[1:]
    assert torch.allclose(alone, together, atol=1e-5)


def test_noise_schedule_is_stable_diffusions_with_another_end():
    alphas = TinyModel(TinyConfig(beta_end=0.012)).alphas_cumprod
    assert alphas.dtype == torch.float64 and alphas.shape == (1000,)
    assert alphas[0].item() == pytest.approx(1 - 0.00085, abs=1e-12)
    assert alphas[-1].item() == pytest.approx(0.0046600, abs=1e-6)  # Stable Diffusion 1 and 2's published value
    assert (alphas.diff() < 0).all()
    own = TinyModel().alphas_cumprod
    # A scene's ground has 32 x 32 x 4 latent values: summed over them, it is still below the noise.
    assert own[0] == alphas[0] and 32 * 32 * 4 * own[-1] < 0.25


def test_a_causal_word_sees_only_those_before_it():
    for causal in (True, False):
        torch.manual_seed(0)
        model = TinyModel(TinyConfig(text_causal=causal)).eval()
        circle, square = model.encode_prompt(["a red circle", "a red square"])
        assert torch.allclose(circle[:3], square[:3], atol=1e-5) is causal
        assert not torch.allclose(circle[3], square[3], atol=1e-2)


def test_cross_attention_sits_at_a_quarter_of_the_side():
    model, sides = fresh(), []
    for name, module in model.unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_hook(lambda _, inputs, __: sides.append(round(inputs[0].shape[1] ** 0.5)))
    with torch.no_grad():
        model.unet(torch.zeros(1, 4, 32, 32), 500, model.encode_prompt([""]))
    assert sides == [16, 8, 8, 8, 8]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (160, 128), (256, 512)])
def test_other_sizes_run(height, width):
    pictures = sample(fresh(), ["a red circle"], steps=1, height=height, width=width)
    assert pictures.shape == (1, 3, height, width)
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_save_and_load(tmp_path):
    model = fresh()
    model.save(tmp_path)
    loaded = load_tiny(tmp_path)
    assert loaded.config == model.config
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pairs = [(one.unet(latents, 300, one.encode_prompt(["a star"])).sample) for one in (model, loaded)]
    assert torch.allclose(*pairs, atol=0.02)


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"asyndm_ext\.embedded\.train"):
        load_tiny(tmp_path)


def test_sample_depends_on_its_own_seed_only():
    model = fresh()
    both = sample(model, ["a red circle", "two stars"], seed=3, steps=2)
    second = sample(model, ["two stars"], seed=4, steps=2)
    assert torch.allclose(both[1:], second, atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=0.05)


# The training


def test_rate_warms_up_then_falls():
    settings = TrainSettings(steps=1000, warmup=100, learning_rate=1.0)
    rates = [rate_at(step, settings) for step in (0, 49, 99, 100, 550, 1000, 2000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.505, 0.01, 0.01])


@pytest.mark.parametrize(("part", "share"), [((0.4, 0.82), 0.6), ((0.0, 0.5), 0.3), ((0.2, 1.0), 0.0)])
def test_times_are_spread_over_all_and_denser_where_it_is_decided(part, share):
    uniform = torch.arange(100_000, dtype=torch.float64) / 100_000
    spread = spread_times(uniform, TrainSettings(deciding_times=part, deciding_share=share))
    assert (spread.diff() > 0).all() and spread[0] == 0 and 1 - 1e-3 < spread[-1] < 1
    expected = [(1 - share) / 20 + share * overlap(part, (n / 20, n / 20 + 0.05)) for n in range(20)]
    assert torch.histc(spread, 20, 0, 1).div(100_000).tolist() == pytest.approx(expected, abs=1e-4)


def overlap(part, piece):
    """The share of ``part`` that lies in ``piece``."""
    return max(0.0, min(part[1], piece[1]) - max(part[0], piece[0])) / (part[1] - part[0])


def test_whereabouts_are_the_scenes_objects():
    scenes = [scene_from_seed(3, number) for number in range(40)]
    nouns, cover = whereabouts(scenes)
    for scene, columns, covered in zip(scenes, nouns, cover, strict=True):
        words = ["<bos>", *scene.prompt.split()]
        groups = scene.text.groups
        assert [words[column].rstrip("s") for column in columns[: len(groups)]] == [group.shape for group in groups]
        assert (columns[len(groups) :] == 0).all() and (covered[len(groups) :] == 0).all()
        assert covered.sum() * 16 * 16 == pytest.approx(scene.masks.sum(), rel=1e-5)
        first = scene.masks[: groups[0].count].any(axis=0)
        assert covered[0, 2, 5] == pytest.approx(first[32:48, 80:96].mean(), abs=1e-6)


def test_word_attention_is_the_layers_own_softmax():
    """Held against the attention of diffusers' explicit processor; nothing is left on the network."""
    model = fresh()
    seen = []

    class Explicit:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
            context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            query, key, value = (
                attn.head_to_batch_dim(project(rows))
                for project, rows in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
            )
            scores = attn.get_attention_scores(query, key)
            if encoder_hidden_states is not None and hidden_states.shape[1] == 64:
                seen.append(scores.unflatten(0, (-1, attn.heads)).mean(dim=1))
            return attn.to_out[0](attn.batch_to_head_dim(scores @ value))

    model.unet.set_attn_processor(Explicit())
    context = model.encode_prompt(["a red circle", "two stars"])
    with torch.no_grad(), word_attention(model.unet) as maps:
        model.unet(torch.randn(2, 4, 32, 32), torch.tensor([500, 20]), encoder_hidden_states=context)
    assert len(maps) == len(seen) == 4
    for ours, theirs in zip(maps, seen, strict=True):
        assert (ours - theirs).abs().max() < 1e-6
    assert not any(module._forward_pre_hooks for module in model.unet.modules())


def test_attention_loss_counts_the_share_on_the_object():
    attention = torch.full((2, 4, 5), 0.1)
    attention[0, :, 2] = torch.tensor([0.6, 0.2, 0.1, 0.1])  # 60 % of column 2 on the first cell
    cover = torch.zeros(2, 2, 2, 2)
    cover[0, 0, 0, 0] = 1  # group 0 is the first cell
    cover[1, 0] = 1  # everywhere: nothing to be learnt
    nouns = torch.tensor([[2, 0], [3, 0]])
    loss = attention_loss([attention], nouns, cover, torch.ones(2))
    assert loss.item() == pytest.approx(-np.log(0.6) / 2, abs=1e-3)
    assert attention_loss([attention], nouns, cover, torch.tensor([0.5, 1.0])).item() == pytest.approx(
        -np.log(0.6) / 4, abs=1e-3
    )


def test_autoencoder_training_learns_and_normalises():
    model = fresh()
    settings = TrainSettings(autoencoder_steps=30, autoencoder_batch=4)
    train_autoencoder(model, settings, say=lambda _: None)
    images = torch.from_numpy(np.stack([scene_from_seed(5, n).image for n in range(16)])).permute(0, 3, 1, 2) / 255
    latents = model.encode(images)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.5
    assert latents.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.5
    flat = (images - images.mean(dim=(2, 3), keepdim=True)).abs().mean()
    assert (model.decode(latents) - images).abs().mean() < flat


def test_resumed_training_gives_the_same_losses(tmp_path):
    whole = DiffusionTrainer(fresh(), SMALL)
    losses = [whole.train_step() for _ in range(4)]

    first = DiffusionTrainer(fresh(), SMALL)
    assert [first.train_step() for _ in range(2)] == losses[:2]
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")

    torch.manual_seed(99)  # the state of the global generator must not matter
    resumed = DiffusionTrainer(fresh(seed=7), SMALL)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert resumed.step == 2
    assert [resumed.train_step() for _ in range(2)] == losses[2:]
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(resumed.averaged.state_dict()[name], value), name


def test_the_average_follows_the_weights():
    trainer = DiffusionTrainer(fresh(), SMALL)
    before = trainer.averaged.unet.conv_out.weight.clone()
    trainer.train_step()
    moved = trainer.averaged.unet.conv_out.weight - before
    target = trainer.model.unet.conv_out.weight - before
    assert torch.allclose(moved, 0.9 * target, atol=1e-6)  # decay min(0.999, 1/10) at the first step


# The shipped weights


def test_shipped_weights_are_small_and_logged():
    sizes = [path.stat().st_size for path in WEIGHTS.iterdir()]
    assert sum(sizes) < 12e6
    log = json.loads((WEIGHTS / "training_log.json").read_text(encoding="utf-8"))
    assert 0 <= log["steps_done"] - log["loss"][-1][0] < 50  # a figure every 50 steps
    assert log["loss"][-1][1] < 0.25 < log["loss"][0][1]


def test_autoencoder_is_faithful(shipped):
    images = torch.from_numpy(np.stack([scene_from_seed(5, n).image for n in range(16)])).permute(0, 3, 1, 2) / 255
    latents = shipped.encode(images)
    assert latents.std().item() == pytest.approx(1, abs=0.3)  # 16 scenes are few
    assert (shipped.decode(latents) - images).abs().mean() < 0.02


def test_a_red_circle(shipped):
    images = to_bytes(sample(shipped, ["a red circle"] * 4, seed=0, steps=16))
    for image in images:
        shares = colour_shares(image)
        assert 0.03 < shares.pop("red") < 0.3  # the world's single circles: 5 % to 20 %
        assert max(shares.values()) < 0.02
