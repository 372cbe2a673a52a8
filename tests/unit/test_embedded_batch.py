"""Pictures in a batch are those that their jobs give alone; masks from a plain pass."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from support.tiny import CONFIG

from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.job import Job, automatic_objects
from asyndm_ext.embedded.sampling import run_variant
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.settings import Settings
from asyndm_ext.world.model import WorldModel

PROMPTS = ("a shark", "three polar bears in the snow", "a penguin on a sled")


@pytest.fixture(scope="module")
def model():
    """Random weights in a smaller network, with attention that is not flat."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = WorldModel(CONFIG).eval()
    for name, parameter in small.unet.named_parameters():
        if "attn2.to_q" in name or "attn2.to_k" in name:
            parameter.data.mul_(6)
    yield small.requires_grad_(False)
    torch.set_num_threads(before)


def job(number=0, steps=5, size=64, **values):
    settings = {name: values.pop(name) for name in list(values) if name in ("strength", "curve", "mask_source")}
    prompt = PROMPTS[number]
    objects = tuple(map(ObjectSpec, automatic_objects(prompt)))
    own = Settings(enabled=True, objects=values.pop("objects", objects), **settings)
    return Job(prompt, seed=number, settings=own, steps=steps, width=size, height=size, **values)


@pytest.mark.parametrize("solver", ["Euler", "Euler a", "DPM++ 2M", "DDIM", "UniPC"])
@pytest.mark.parametrize(
    ("variant", "settings"),
    [("plain", {}), ("concave", {}), ("asyndm", {}), ("asyndm", {"mask_source": "fixed"})],
)
def test_a_batch_equals_its_jobs_alone(model, solver, variant, settings):
    jobs = [job(number, solver=solver, **settings) for number in range(3)]
    together = run_batch(model, jobs, variant).latents
    for number, one in enumerate(jobs):
        alone = run_variant(model, one, variant).latent[0]
        assert (together[number] - alone).abs().max() <= 2e-3 * alone.abs().max()


def test_seeds_prompts_and_variants_make_a_difference(model):
    plain = run_batch(model, [job(0), job(1)], "plain").latents
    asyndm = run_batch(model, [job(0), job(1)], "asyndm").latents
    assert (plain[0] - plain[1]).abs().max() > 0.1
    assert ((plain - asyndm).abs().amax(dim=(1, 2, 3)) > 0.01).all()


def test_a_fixed_mask_is_that_of_the_plain_pass(model):
    jobs = [job(number, mask_source="fixed") for number in range(3)]
    plain = run_batch(model, jobs, "plain", keep_average=True)
    assert plain.average is not None and plain.average.shape == (3, 2, 8, 8)
    assert torch.equal(plain.latents, run_batch(model, jobs, "plain").latents)
    strengths = []
    given = run_batch(
        model, jobs, "asyndm", average=plain.average, watch=lambda record: strengths.append(record.strength)
    )
    assert torch.equal(given.latents, run_batch(model, jobs, "asyndm").latents)
    mean = plain.average.mean(dim=(2, 3), keepdim=True)
    slow = ((plain.average >= mean) & (mean > 0)).any(dim=1, keepdim=True).double() * 0.7
    assert all(torch.equal(strength, slow) for strength in strengths), "a cell of the attention is one of the latent"
    assert (slow > 0).any() and (slow == 0).any()
    assert not torch.equal(given.latents, run_batch(model, [job(number) for number in range(3)], "asyndm").latents)


def test_the_average_does_not_know_objects_that_others_have(model):
    average = run_batch(model, [job(0), job(2)], "plain", keep_average=True).average
    assert average is not None and (average[0, 1:] == 0).all() and (average[0, 0] > 0).all() and (average[1] > 0).all()


@pytest.mark.parametrize(
    "other", [{"strength": 0.5}, {"steps": 4}, {"solver": "DDIM"}, {"guidance": 2.0}, {"size": 96}]
)
def test_jobs_that_differ_in_more_than_they_may(model, other):
    with pytest.raises(ValueError, match="may differ in prompt, seed"):
        run_batch(model, [job(0), job(1, **other)], "plain")


def test_objects_of_other_strengths_do_not_share_a_batch(model):
    strong = job(1, objects=(ObjectSpec("polar bears", 0.2),))
    with pytest.raises(ValueError, match="may differ in prompt, seed"):
        run_batch(model, [job(0), strong], "asyndm")


def test_masks_that_are_not_to_be_fixed_are_not(model):
    """An evaluation hands the plain pass's attention to all methods; only the fixed mask may heed it."""
    average = run_batch(model, [job(0)], "plain", keep_average=True).average
    dynamic = run_batch(model, [job(0)], "asyndm").latents
    assert torch.equal(run_batch(model, [job(0)], "asyndm", average=average).latents, dynamic)
    fixed = job(0, mask_source="fixed")
    assert not torch.equal(run_batch(model, [fixed], "asyndm", average=average).latents, dynamic)
