"""The little world's model: its parts, saving and loading, and what the shipped weights take and know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from safetensors.torch import load_file
from support.tiny import CONFIG, fresh_model

from asyndm_ext.world.attention_loss import attention_loss, word_attention
from asyndm_ext.world.blocks import CELLS
from asyndm_ext.world.drawer import scenes_of
from asyndm_ext.world.model import FILES, WEIGHTS, WorldConfig, WorldModel, load_world
from asyndm_ext.world.pool import pictures
from asyndm_ext.world.train import LOG, log_of

needs_weights = pytest.mark.skipif(not (WEIGHTS / FILES[0]).is_file(), reason="no weights yet")


@pytest.fixture(autouse=True, scope="module")
def few_threads():
    """Small tensors: more threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(config: WorldConfig | None = None) -> WorldModel:
    """The real architecture with random weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return WorldModel(config).eval().requires_grad_(False)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the parts ------------------------------------------------------------------------------------------------------


def test_encode_prompt_gives_a_row_per_word_and_zeros_for_padding():
    context = fresh().encode_prompt(["a polar bear", ""])
    assert context.shape == (2, 24, 96) and context.dtype == torch.float32
    assert (context[0, 5:] == 0).all() and (context[1, 2:] == 0).all()
    assert (context[0, :5].abs().sum(dim=-1) > 1).all()


def test_prompts_do_not_see_each_other():
    model = fresh()
    alone = model.encode_prompt(["a red boat"])
    together = model.encode_prompt(["two polar bears next to a yellow tent in the snow at night", "a red boat"])[1:]
    assert torch.allclose(alone, together, atol=1e-5)


def test_a_word_sees_those_before_it_only():
    shark, sled = fresh().encode_prompt(["a shark riding a bike", "a shark riding a sled"])
    assert torch.allclose(shark[:5], sled[:5], atol=1e-5)
    assert not torch.allclose(shark[5], sled[5], atol=1e-2)
    red, blue = fresh().encode_prompt(["a red bike", "a blue bike"])
    assert not torch.allclose(red[3], blue[3], atol=1e-2), "a noun's row knows its adjective"


def test_noise_schedule_is_stable_diffusions_with_another_end():
    alphas = fresh(WorldConfig(beta_end=0.012)).alphas_cumprod
    assert alphas.dtype == torch.float64 and alphas.shape == (1000,)
    assert alphas[0].item() == pytest.approx(1 - 0.00085, abs=1e-12)
    assert alphas[-1].item() == pytest.approx(0.0046600, abs=1e-6)  # Stable Diffusion 1 and 2's published value
    assert (alphas.diff() < 0).all()
    own = fresh().alphas_cumprod
    assert own.dtype == torch.float64
    # A scene's ground has 12 x 16 x 16 latent values: summed over them, it is still below the noise.
    assert own[0] == alphas[0] and 12 * 16 * 16 * own[-1] < 1


def test_what_the_network_predicts_is_v():
    assert fresh().prediction_type == WorldConfig().prediction_type == "v_prediction"
    assert fresh(WorldConfig(prediction_type="epsilon")).prediction_type == "epsilon"


def test_words_are_attended_to_at_the_latents_side_and_at_half_of_it():
    model, sides = fresh(), []
    for name, module in model.unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_hook(lambda _, inputs, __: sides.append(round(inputs[0].shape[1] ** 0.5)))
    v = model.unet(torch.zeros(1, 12, 16, 16), 500, model.encode_prompt([""])).sample
    assert v.shape == (1, 12, 16, 16)
    assert sides == [16, 8, 8, 8, 8, 16, 16]
    assert 16 >> model.attention_halvings == CELLS


@pytest.mark.parametrize(("height", "width"), [(16, 16), (128, 128), (144, 96)])
def test_pictures_to_latents_and_back(height: int, width: int):
    model = fresh()
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    latents = model.encode(images)
    assert latents.shape == (2, model.latent_channels, height // 8, width // 8)
    assert model.latent_channels == 12 and model.latent_factor == 8
    decoded = model.decode(10 * latents)
    assert decoded.shape == images.shape
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_latents_of_another_precision_are_decoded():
    model = fresh_model()
    latents = normal(1, model.latent_channels, 4, 4)
    assert torch.allclose(model.decode(latents.double()), model.decode(latents), atol=1e-6)


# --- files ----------------------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    model = fresh(CONFIG)
    model.save(tmp_path / "new" / "folder")
    loaded = load_world(tmp_path / "new" / "folder")
    assert loaded.config == model.config == CONFIG
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, value in model.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32 and torch.equal(found, value.half().float()), name
    latents = normal(1, CONFIG.latent_channels, 16, 16)
    pairs = [(one.unet(latents, 300, one.encode_prompt(["a cat"])).sample) for one in (model, loaded)]
    assert torch.allclose(*pairs, atol=0.02)


def test_files_are_in_half_precision(tmp_path):
    fresh(CONFIG).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert {value.dtype for value in load_file(tmp_path / FILES[0]).values()} == {torch.float16}


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no world\.safetensors in .*asyndm_ext\.world\.train --out training"):
        load_world(tmp_path)


# --- the attention's own loss ---------------------------------------------------------------------------------------


def test_word_attention_is_the_layers_own_softmax():
    """Held against the attention of diffusers' explicit processor; nothing is left on the network."""
    model = fresh_model()
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
    context = model.encode_prompt(["a red boat", "two cats"])
    with torch.no_grad(), word_attention(model.unet, 8) as maps:
        model.unet(normal(2, model.latent_channels, 16, 16), torch.tensor([500, 20]), encoder_hidden_states=context)
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


# --- the shipped weights --------------------------------------------------------------------------------------------


@needs_weights
def test_shipped_weights_are_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 24e6
    assert {value.dtype for value in load_file(WEIGHTS / FILES[0]).values()} == {torch.float16}


@needs_weights
def test_the_shipped_autoencoder_is_faithful():
    shipped, images = load_world(), pictures(scenes_of(5, range(16)))
    latents = shipped.encode(images)
    assert latents.std().item() == pytest.approx(1, abs=0.3)  # 16 scenes are few
    assert (shipped.decode(latents) - images).abs().mean() < 0.03


@pytest.mark.skipif(not (WEIGHTS / LOG).is_file(), reason="no weights yet")
def test_the_shipped_weights_have_a_log():
    log = log_of(WEIGHTS)
    last = log["loss"][-1][1]
    while log is not None:
        assert 0 <= log["steps_done"] - log["loss"][-1][0] < 50  # a figure every 50 steps
        assert log["decoder"]["steps_done"] > 1000
        log, first = log.get("before"), log["loss"][0][1]
    assert last < first / 2
