"""The training with lagging objects (``tests/lagging_training.py``) conditions pixels as sampling does."""

from __future__ import annotations

import torch
from lagging_training import slow_pixels, two_times

from asyndm_ext.embedded.model import TinyModel
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable
from asyndm_ext.model.unet_time import UNetTimeConditioning


def untrained() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel().eval().requires_grad_(False)


def test_two_times_are_those_of_sampling() -> None:
    model = untrained()
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(2, 4, 32, 32, generator=generator), torch.zeros(2, 1, 32, 32)
    mask[0, :, 8:20, 4:12] = 1
    mask[1, :, :, 16:] = 1
    ground, slow = torch.tensor([300, 700]), torch.tensor([500, 900])
    context = model.encode_prompt(["a red circle", "a blue star and a green square"])
    with torch.no_grad():
        plain = model.unet(x, ground, encoder_hidden_states=context).sample
        with two_times(model.unet, ground, slow, mask):
            trained = model.unet(x, ground, encoder_hidden_states=context).sample
        after = model.unet(x, ground, encoder_hidden_states=context).sample
        time = UNetTimeConditioning(model.unet)
        timesteps = torch.where(mask > 0, slow.view(2, 1, 1, 1), ground.view(2, 1, 1, 1)).double()
        with time.attached():
            time.use(TimestepTable.from_map(timesteps, QUANTUM), [0, 1])
            sampled = model.unet(x, ground, encoder_hidden_states=context).sample
    assert torch.equal(plain, after)
    assert (trained - sampled).abs().max() < 1e-5 * sampled.abs().max()
    assert (trained - plain).abs().max() > 1e-3 * plain.abs().max()


def test_where_all_pixels_are_slow_the_gradient_is_that_of_the_slow_time() -> None:
    model = untrained()
    model.unet.requires_grad_(True)
    context = model.encode_prompt(["a red circle"])
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    ground, slow = torch.tensor([300]), torch.tensor([900])

    def gradient(time: torch.Tensor) -> torch.Tensor:
        model.unet.zero_grad()
        model.unet(x, time, encoder_hidden_states=context).sample.square().mean().backward()
        return model.unet.time_embedding.linear_1.weight.grad.clone()

    expected, other = gradient(slow), gradient(ground)
    with two_times(model.unet, ground, slow, torch.ones(1, 1, 32, 32)):
        found = gradient(ground)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (found - other).abs().max() > 1e-2 * expected.abs().max()


def test_slow_pixels_are_objects_of_the_picture_or_of_its_neighbour_or_nothing() -> None:
    cover = torch.zeros(400, 3, 8, 8)
    cover[::2, 0, :4] = 0.5  # even pictures: the upper half
    cover[1::2, 2, 4:] = 0.5
    cover[:, 1] = 0.2  # too little
    masks = slow_pixels(cover, 32, 0.5, torch.Generator().manual_seed(0))
    assert masks.shape == (400, 1, 32, 32)
    upper, lower = masks[:, 0, :16].flatten(1), masks[:, 0, 16:].flatten(1)
    assert ((upper.amin(1) == upper.amax(1)) & (lower.amin(1) == lower.amax(1)) & (upper[:, 0] + lower[:, 0] < 2)).all()
    own = torch.where(torch.arange(400) % 2 == 0, upper[:, 0], lower[:, 0]).mean()
    others = torch.where(torch.arange(400) % 2 == 0, lower[:, 0], upper[:, 0]).mean()
    assert 0.18 < own < 0.32 and 0.18 < others < 0.32
