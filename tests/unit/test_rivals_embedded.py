"""The rivals on the embedded model's architecture: neutral settings, together with AsynDM, nothing left behind."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

pytest.importorskip("diffusers")

from support.tiny import fresh_model, job

from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.rivals.choice import Rival

GUIDANCE = job().guidance
NEUTRAL = {
    "zigzag": Rival("zigzag", {"zigzag_rounds": 0}),
    "seg": Rival("seg", {"seg_scale": 0.0}),
    "no blur": Rival("seg", {"seg_blur": 0.0}),
}
RIVALS = {name: Rival(name) for name in ("zigzag", "seg", "s-cfg", "cfg++")}


@pytest.fixture(scope="module")
def model():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = fresh_model()
    for name, weight in model.unet.named_parameters():
        if "attn" in name and ("to_q" in name or "to_k" in name):
            weight.data *= 3
    yield model
    torch.set_num_threads(before)


def jobs(number=1, steps=4, **values):
    return [job(seed=5 + n, width=64, height=96, steps=steps, **values) for n in range(number)]


def drawn(model, rival, variant="plain", number=1, **values):
    with torch.inference_mode():
        return run_batch(model, jobs(number, **values), variant, rival=rival)


def near(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("solver", ["Euler", "DDIM"])
@pytest.mark.parametrize("variant", ["plain", "asyndm"])
@pytest.mark.parametrize("neutral", list(NEUTRAL))
def test_neutral_settings_are_plain_guidance(model, solver, variant, neutral):
    plain = drawn(model, None, variant, solver=solver)
    found = drawn(model, NEUTRAL[neutral], variant, solver=solver)
    # Another size of the batch and another order of sums are rounded otherwise, and a threshold makes more of it.
    assert near(found.latents, plain.latents) < 5e-4
    assert torch.allclose(found.scales, plain.scales, rtol=1e-4) and set(plain.scales.flatten().tolist()) == {GUIDANCE}


@pytest.mark.parametrize("solver", ["Euler", "DDIM"])
@pytest.mark.parametrize("rival", list(RIVALS))
def test_every_rival_makes_another_picture_and_tells_its_scale(model, solver, rival):
    plain = drawn(model, None, solver=solver)
    found = drawn(model, RIVALS[rival], solver=solver)
    assert near(found.latents, plain.latents) > 1e-3
    assert found.scales.shape == plain.scales.shape and bool(torch.isfinite(found.scales).all())
    assert float((found.scales - 5).abs().max()) > 0.01


@pytest.mark.parametrize("rival", ["seg", "s-cfg", "cfg++"])
def test_together_with_asyndm_both_act(model, rival):
    """Neither of the two alone, and at strength 0 the rival alone."""
    both = drawn(model, RIVALS[rival], "asyndm").latents
    assert near(both, drawn(model, RIVALS[rival]).latents) > 1e-3
    assert near(both, drawn(model, None, "asyndm").latents) > 1e-3
    still = drawn(model, RIVALS[rival], "asyndm", settings={"strength": 0.0}).latents
    assert near(still, drawn(model, RIVALS[rival]).latents) < 2e-5


@pytest.mark.parametrize("rival", list(RIVALS))
def test_a_batch_equals_its_pictures_alone(model, rival):
    # Batches are rounded otherwise, and every step back and forth of Z-Sampling makes thirty times as much of it here.
    together = drawn(model, RIVALS[rival], number=2, steps=2)
    for number in range(2):
        with torch.inference_mode():
            alone = run_batch(model, [jobs(2, steps=2)[number]], "plain", rival=RIVALS[rival])
        assert near(together.latents[number], alone.latents[0]) < 2e-3
        assert torch.allclose(together.scales[number], alone.scales[0], rtol=2e-3)


def test_nothing_is_left_on_the_network_after_an_error(model):
    """And plain pictures keep their bits after all of them."""
    before = drawn(model, None).latents

    def stop(_):
        raise RuntimeError("stop")

    for rival in RIVALS.values():
        drawn(model, rival)
        with pytest.raises(RuntimeError, match="stop"):
            run_batch(model, jobs(), "plain", rival=rival, watch=stop)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.unet.modules())
    assert torch.equal(drawn(model, None).latents, before)


def test_cfgpp_scales_fall_from_step_to_step_where_levels_fall_alike(model):
    scales = drawn(model, RIVALS["cfg++"], scheduler="exponential").scales[0].tolist()
    assert all(a == pytest.approx(b, rel=1e-3) for a, b in pairwise(scales[:-1]))
    assert scales[-1] == pytest.approx(GUIDANCE / 12.5)


def test_zigzag_as_published_is_what_the_authors_schedulers_do():
    """Their loop: a DDIM step to s, the inverse scheduler's step with the timestep of s, the DDIM step again."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler
    from support.solvers import SHAPE, TABLE, Gaussian, randn, webui_timesteps

    from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
    from asyndm_ext.region.regions import FixedRegion
    from asyndm_ext.rivals.zigzag import sample_zigzag
    from asyndm_ext.run import FromHost, Run

    class Guided(Gaussian):
        last_uncond: torch.Tensor | None = None

        def __call__(self, x, nominal, level):
            self.last_uncond = self.eps(x, level)
            return self.last_uncond + 5.0 * (self.mean.tanh() * 0.1 + 0.2 * x.cos())

    steps, model, x = 10, Guided("timestep"), randn(*SHAPE, seed=5)
    shape = (SHAPE[0], 1, *SHAPE[2:])
    base = BaseSchedule.from_timesteps(webui_timesteps(steps).flip(0))
    schedule, region = PixelSchedule(base, shape, "quadratic"), FixedRegion.everything(shape, 0.0)
    run = Run(model, schedule, region, x, FromHost(table=TABLE))
    found = sample_zigzag(run, x, space="timestep", guidance=5.0, published=True)

    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    forth, back = DDIMScheduler(**settings, steps_offset=1), DDIMInverseScheduler(**settings, steps_offset=1)
    for scheduler in (forth, back):
        scheduler.set_timesteps(steps)
        scheduler.alphas_cumprod = TABLE.alphas_cumprod
    times = forth.timesteps.tolist()
    assert times[:-1] == [int(base.nominal(i)) for i in range(run.count)]

    def eps(x, t, guided=True):
        answer = model(x, 0.0, torch.full(shape, float(t), dtype=torch.float64))
        return answer if guided else model.last_uncond

    for i, t in enumerate(times[:-1]):
        after = forth.step(eps(x, t), t, x).prev_sample
        if i < len(times) - 2:
            returned = back.step(eps(after, t, guided=False), times[i + 1], after).prev_sample
            after = forth.step(eps(returned, t), t, returned).prev_sample
        x = after
    assert torch.allclose(found, x, rtol=1e-6, atol=1e-6)
