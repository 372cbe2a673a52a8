"""Regions from guidance: where the prompt makes a difference, in every host, and what becomes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import a1111, forge
from support.kdiffusion import k_diffusion
from support.tiny_model import tiny
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.exact.config import ExactConfig, combinations
from asyndm_ext.exact.model import ExactModel
from asyndm_ext.exact.sampling import Conditions, sample
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.model.prompt_effect import PromptEffect, difference
from asyndm_ext.region.masks import smooth
from asyndm_ext.region.regions import NoAttention, region_for
from asyndm_ext.settings import Settings
from asyndm_ext.ui.coverage import NOTHING_LAGGED, Coverage

IMAGES, SIDE = 2, 4
COND, UNCOND = torch.randn(2, IMAGES, 3, 5, generator=torch.Generator().manual_seed(5))
STEPS = torch.arange(IMAGES * SIDE * SIDE, dtype=torch.float64).view(IMAGES, 1, SIDE, SIDE)


def levels(timesteps: bool) -> tuple[float, Tensor]:
    """The nominal level, and a map from there on upwards."""
    return (401.0, 401 + 10 * STEPS.remainder(7)) if timesteps else (1.5, 1.5 * 1.02 ** STEPS.remainder(7))


def latent(timesteps: bool) -> Tensor:
    x = torch.randn(IMAGES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return x if timesteps else 3 * x


# -- rows as they come


def test_rows_may_come_in_slices_and_in_any_order():
    rows = torch.randn(6, 3, 2, 5, generator=torch.Generator().manual_seed(1))
    expected = (rows[[0, 1]] - rows[[2, 3]]).square().mean(1, keepdim=True).sqrt()
    for slices in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[3, 2], [0, 1]]):
        effect = PromptEffect(2)
        for one in slices:
            effect.take(rows[one], [row % 2 for row in one], [row < 2 for row in one])
        torch.testing.assert_close(effect.maps(), expected)
    effect.take(rows[4:], [0, 1], [None, None])  # another extension's
    effect.take(rows[4:], [0, 1], [False, False])  # a second time
    torch.testing.assert_close(effect.maps(), expected)
    effect.begin()
    assert effect.maps() is None


def test_parts_of_a_prompt_count_together_and_an_answer_that_is_missing_is_told():
    rows = torch.randn(3, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).half()
    effect = PromptEffect(1)
    effect.take(rows[:2], [0, 0], [True, True])
    assert effect.maps() is None
    effect.take(rows[2:], [0], [False])
    found = effect.maps()
    assert found.shape == (1, 1, 4, 4) and found.dtype == torch.float32
    expected = (rows[:2].mean(0).float() - rows[2].float()).square().mean(0).sqrt()
    torch.testing.assert_close(found[0], expected)


# -- the hosts: as far apart as the host's own answers with either text at each pixel's own level


def apart_by(host: Any, timesteps: bool, table: NoiseTable | None) -> Tensor:
    """``host(cond, uncond, level)`` guides by 3: ``3 c - 2 u``, and the other way round ``3 u - 2 c``."""
    found = torch.zeros(latent(timesteps).shape)
    at = levels(timesteps)[1]
    for level in at.unique().tolist():
        found = torch.where(at == level, (host(COND, UNCOND, level) - host(UNCOND, COND, level)) / 5, found)
    found = found.square().mean(1, keepdim=True).sqrt()
    if table is None:
        return found
    alpha = table.alpha_at(at)
    return found * ((1 - alpha) / alpha).sqrt()


@pytest.mark.parametrize("how", [{}, {"rows_at_once": False}], ids=["batch", "halves"])
@pytest.mark.parametrize("kind", ["eps", "v", "timesteps", "timesteps v"])
def test_in_a1111(kind: str, how: dict[str, bool]) -> None:
    timesteps = kind.startswith("timesteps")
    with a1111.host() as module:

        def wrap() -> Any:
            if timesteps:
                return (a1111.TimestepsVDenoiser if "v" in kind else a1111.TimestepsDenoiser)(a1111.Checkpoint())
            external = k_diffusion()[1]
            return (external.CompVisVDenoiser if kind == "v" else external.CompVisDenoiser)(a1111.Checkpoint())

        def extra(cond: Tensor, uncond: Tensor) -> dict[str, Any]:
            return {"cond": SimpleNamespace(batch=[[0]] * IMAGES), "text": torch.cat([cond, uncond])}

        def host(cond: Tensor, uncond: Tensor, level: float) -> Tensor:
            scalar = torch.full((IMAGES,), level, dtype=torch.float32)
            return a1111.Denoiser(wrap(), [], **how)(latent(timesteps), scalar, **extra(cond, uncond))

        denoiser = a1111.Denoiser(wrap(), [], **how)
        space = "timestep" if timesteps else "sigma"
        model = module.PixelDenoiser(denoiser, extra(COND, UNCOND), space, IMAGES, None, effect=True)
        with model.attached():
            answer = model(latent(timesteps), *levels(timesteps))
            found = model.attention()
            table = model.noise if timesteps else None
        plain = module.PixelDenoiser(a1111.Denoiser(wrap(), [], **how), extra(COND, UNCOND), space, IMAGES, None)
        with plain.attached():
            assert torch.equal(plain(latent(timesteps), *levels(timesteps)), answer), "it only looks"
    expected = apart_by(host, timesteps, table)
    assert found.shape == (IMAGES, 1, SIDE, SIDE)
    assert float((found - expected).abs().max() / expected.max()) < 2e-3
    assert float(expected.std() / expected.mean()) > 0.05, "the pixels differ"


def test_a_step_without_uncond_keeps_the_mask_before_in_a1111_and_says_so() -> None:
    external = k_diffusion()[1]
    extra = {"cond": SimpleNamespace(batch=[[0]] * IMAGES), "text": torch.cat([COND, UNCOND])}
    with a1111.host() as module:
        denoiser = a1111.Denoiser(external.CompVisDenoiser(a1111.Checkpoint()), [])
        model = module.PixelDenoiser(denoiser, extra, "sigma", IMAGES, None, effect=True)
        with model.attached():
            model(latent(False), *levels(False))
            first = model.attention()
            denoiser.uncond = False
            model(latent(False), *levels(False))
            assert model.attention() is first
            assert model.neighbours.said() == (
                "the answer without the prompt could not be read in every step, so masks of the step before were kept"
            )
        other = module.PixelDenoiser(denoiser, extra, "sigma", IMAGES, None, effect=True)
        with other.attached():
            other(latent(False), *levels(False))
            assert other.attention() is None


@pytest.mark.parametrize("timesteps", [False, True], ids=["sigma", "timesteps"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_in_forge(kind: str, timesteps: bool) -> None:
    with forge.host() as module:

        def host(cond: Tensor, uncond: Tensor, level: float) -> Tensor:
            scalar = torch.full((IMAGES,), level, dtype=torch.float32)
            denoiser = forge.Denoiser(forge.Checkpoint(kind), [], timesteps)
            return denoiser(latent(timesteps), scalar, cond=cond, uncond=uncond)

        denoiser = forge.Denoiser(forge.Checkpoint(kind), [], timesteps)
        space = "timestep" if timesteps else "sigma"
        model = module.PixelDenoiser(denoiser, {"cond": COND, "uncond": UNCOND}, space, IMAGES, None, effect=True)
        with model.attached():
            model(latent(timesteps), *levels(timesteps))
            found = model.attention()
            table = model.noise if timesteps else None
        expected = apart_by(host, timesteps, table)
    assert float((found - expected).abs().max() / expected.max()) < 2e-3


def test_in_the_embedded_host_both_spaces_say_the_same() -> None:
    model = tiny()
    table = NoiseTable.from_alphas_cumprod(model.alphas_cumprod)
    cond, uncond = model.encode_prompt(["a shark"]), model.encode_prompt([""])
    x = torch.randn(1, model.latent_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.full((1, 1, 8, 8), 500.0, dtype=torch.float64)
    alpha = table.alpha_at(t)
    sigma = ((1 - alpha) / alpha).sqrt()
    found = []
    for space, own, level in (("timestep", x, t), ("sigma", x / alpha.sqrt().float(), sigma)):
        guided = GuidedUNet(model.unet, cond, uncond, 5.0, table, model.prediction_type, space, effect=True)
        with guided.attached(), torch.no_grad():
            answer = guided(own, float(level.flatten()[0]), level)
        found.append(guided.attention())
        apart = (answer - guided.last_uncond) / 5
        expected = apart.square().mean(1, keepdim=True).sqrt() * (1 if space == "sigma" else sigma)
        torch.testing.assert_close(found[-1], expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


# -- what becomes of it


def test_the_region_is_where_it_is_above_the_mean_once_smoothed() -> None:
    settings = Settings(mask_source="guidance", objects="cat:0.1", strength=0.6, order="in turn")
    region = region_for(settings, (2, 1, 32, 48))
    maps = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(1))
    maps[:, :, 8:20, 10:30] += 1.5
    region.observe(maps, 0.0)
    smoothed = smooth(maps.double(), 2.0)
    expected = 0.6 * (smoothed >= smoothed.mean((-2, -1), keepdim=True)).double()
    assert torch.equal(region.strength(0.0), expected)
    assert 0.1 < float((expected > 0).double().mean()) < 0.4
    wide = region_for(Settings(mask_source="guidance", smoothing=2.0), (2, 1, 32, 48))
    wide.observe(maps, 0.0)
    once = smooth(maps.double(), 68**0.5)  # two cells of four pixels, and what is always there
    assert torch.equal(wide.strength(0.0) > 0, once >= once.mean((-2, -1), keepdim=True))


def test_without_an_answer_without_the_prompt_it_is_refused_with_the_reason() -> None:
    with pytest.raises(NoAttention, match=r"there is none without it \(at CFG scale 1 nobody asks for it\)"):
        region_for(Settings(mask_source="guidance"), (1, 1, 8, 8)).observe(None, 0.0)


def test_words_have_no_use_with_it_and_are_not_recorded() -> None:
    settings = Settings(enabled=True, mask_source="guidance", objects="cat:0.9 > dog", order="in turn", strength=0.5)
    assert settings.infotext() == {
        "AsynDM strength": "0.5",
        "AsynDM curve": "quadratic",
        "AsynDM threshold": "1",
        "AsynDM region": "objects",
        "AsynDM mask source": "guidance",
    }
    assert settings.strongest == 0.5
    coverage = Coverage()
    assert coverage.note(settings) == NOTHING_LAGGED
    level, slow = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[0.5, 0.0]]]])
    coverage.watch(SimpleNamespace(strength=slow, level=level, nominal=1.0))
    assert coverage.note(settings).startswith("the mask source 'guidance' knows no words")
    assert coverage.note(Settings(mask_source="guidance")) is None


def test_in_the_exact_world_the_parts_on_which_the_prompt_acts_more_are_slow() -> None:
    world = ExactWorld(ExactConfig())
    asked = combinations(2, False)[:8]
    made: list[ExactModel] = []

    def keep(*arguments: Any) -> ExactModel:
        made.append(ExactModel(*arguments))
        return made[-1]

    settings = Settings(enabled=True, mask_source="guidance", strength=1.0)
    conditions = Conditions("DDIM", steps=10, guidance=5.0, eta=1.0)
    ours = sample(world, asked, range(8), conditions, settings, made=keep)
    plain = sample(world, asked, range(8), conditions)
    zero = sample(world, asked, range(8), conditions, Settings(mask_source="guidance", strength=0.0))
    assert torch.equal(zero, plain) and not torch.allclose(ours, plain, atol=0.1)
    found = made[0].attention()
    assert found.shape == (8, 1, 1, 2)
    x = torch.randn(8, 16, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    level = torch.tensor([1.5, 2.0]).double().expand(8, 1, 1, 2)
    model = ExactModel(world, asked, 5.0, NoiseTable.from_alphas_cumprod(world.alphas_cumprod), "sigma")
    model.tells_effect = True
    model(x, 1.5, level)
    uncond, cond = model.denoised(x, level)
    torch.testing.assert_close(model.attention(), difference(cond, uncond))
