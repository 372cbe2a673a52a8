"""What a measurement is held against: regions that have nothing to do with the prompt, and objects in turn."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from asyndm_ext.embedded.batch import run_batch
from asyndm_ext.embedded.controls import Rest, controlled, half
from asyndm_ext.evaluate.backends.embedded import job_of
from asyndm_ext.evaluate.methods import check_usual, lay_out
from asyndm_ext.evaluate.plan import Pair
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.region.regions import FixedRegion
from tests.support.tiny import job, random_model

CONDITIONS = {"solver": ["Euler"], "scheduler": ["uniform"], "steps": [3], "guidance": [4.0]}


def test_a_half_is_a_half_and_the_seed_says_which():
    strength = half((4, 1, 6, 8), 0.7, [0, 1, 2, 3]).strength(0.0)
    assert torch.equal((strength > 0).double().mean((1, 2, 3)), torch.full((4,), 0.5, dtype=torch.float64))
    assert set(strength.unique().tolist()) == {0.0, 0.7}
    left, right, upper, lower = strength[:, 0]
    assert (left[:, :4] > 0).all() and (right[:, 4:] > 0).all() and (upper[:3] > 0).all() and (lower[3:] > 0).all()
    again = half((1, 1, 6, 8), 0.7, [7]).strength(0.0)
    assert torch.equal(again[0, 0], lower)


def test_the_rest_is_what_the_objects_are_not():
    objects = torch.tensor([[[[0.0, 0.7], [0.3, 0.0]]]], dtype=torch.float64)
    rest = controlled("rest", FixedRegion(objects), (1, 1, 2, 2), 0.7, [0])
    assert isinstance(rest, Rest)
    assert torch.allclose(rest.strength(0.0), torch.tensor([[[[0.7, 0.0], [0.4, 0.7]]]], dtype=torch.float64))


@pytest.mark.parametrize("control", ["half", "rest"])
def test_a_control_without_strength_is_the_plain_picture(control):
    still = job({"strength": 0.0})
    model = random_model()
    plain = run_batch(model, [still], "plain").latents
    assert torch.equal(run_batch(model, [still], "asyndm", control=control).latents, plain)
    moved = run_batch(model, [job({"strength": 0.7})], "asyndm", control=control).latents
    ours = run_batch(model, [job({"strength": 0.7})], "asyndm").latents
    assert not torch.equal(moved, plain) and not torch.equal(moved, ours)


def test_eta_is_the_solvers():
    model, wanted = random_model(), job(solver="DDIM")
    without, none, whole = (run_batch(model, [wanted], "plain", eta=eta).latents for eta in (0.0, None, 1.0))
    assert torch.equal(without, none) and not torch.equal(without, whole)


@pytest.mark.parametrize(("kind", "order"), [("in turn", "in turn"), ("last first", "in turn, last first")])
def test_objects_in_turn(kind, order):
    (_, method) = lay_out([kind], {"strength": [0.7], "curve": ["quadratic"]}, CONDITIONS)
    found = job_of(Pair(Prompt("a shark riding a bike", "unusual"), 1), method, 128)
    assert [spec.name for spec in found.settings.objects] == ["shark", "bike"]
    assert (found.settings.order, found.settings.strength) == (order, 0.7)
    check_usual([method])  # a WebUI can do that, too
