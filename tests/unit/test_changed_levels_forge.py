"""As in ``test_changed_levels.py``, in Forge: there the rows of an image share one level, and timestep samplers are
given sigmas on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support import forge
from torch import Tensor

IMAGES, SIDE = 2, 4
TEXT = torch.randn(2 * IMAGES, 3, 5, generator=torch.Generator().manual_seed(5))
KINDS = ("epsilon", "v_prediction")


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    with forge.host() as found:
        yield found


def in_place(params: Any) -> None:
    params.sigma *= 0.93


def assigned(params: Any) -> None:
    params.sigma = params.sigma * 1.06


def of_every_image(params: Any) -> None:
    params.sigma = params.sigma * torch.linspace(0.9, 1.1, len(params.sigma))


EDITS: dict[str, Callable[[Any], None]] = {
    "nothing": lambda params: None,
    "in place": in_place,
    "assigned": assigned,
    "of every image": of_every_image,
}


def latent(timesteps: bool) -> Tensor:
    x = torch.randn(IMAGES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return x if timesteps else 3 * x


def level_map(timesteps: bool) -> tuple[float, Tensor]:
    steps = torch.arange(IMAGES * SIDE * SIDE, dtype=torch.float64).view(IMAGES, 1, SIDE, SIDE)
    return (401.0, 401 + 10 * steps.remainder(7)) if timesteps else (1.5, 1.5 * 1.02 ** steps.remainder(7))


def arguments() -> dict[str, Tensor]:
    return {"uncond": TEXT[:IMAGES], "cond": TEXT[IMAGES:]}


def ours(module: Any, kind: str, timesteps: bool, edit: Callable, nominal: float, level: Tensor) -> tuple[Tensor, Any]:
    denoiser = forge.Denoiser(forge.Checkpoint(kind), [edit], timesteps)
    space = "timestep" if timesteps else "sigma"
    model = module.PixelDenoiser(denoiser, arguments(), space, IMAGES, None)
    with model.attached():
        return model(latent(timesteps), nominal, level), model


def hosts_at(kind: str, timesteps: bool, edit: Callable, levels: Tensor) -> Tensor:
    """Pixel by pixel the host's own answer at its level."""
    found = torch.zeros(latent(timesteps).shape)
    for level in levels.unique().tolist():
        scalar = torch.full((IMAGES,), level, dtype=torch.float32)
        answer = forge.Denoiser(forge.Checkpoint(kind), [edit], timesteps)(latent(timesteps), scalar, **arguments())
        found = torch.where(levels == level, answer, found)
    return found


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("timesteps", [False, True], ids=["sigma", "timesteps"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map(module: Any, kind: str, timesteps: bool, edit: Callable) -> None:
    nominal, level = level_map(timesteps)
    found, model = ours(module, kind, timesteps, edit, nominal, level)
    expected = hosts_at(kind, timesteps, edit, level)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert model.neighbours.said() is None
    changes = (expected - hosts_at(kind, timesteps, EDITS["nothing"], level)).abs().max() > 0.008
    assert changes == (edit is not EDITS["nothing"]), "the change can be seen"


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("timesteps", [False, True], ids=["sigma", "timesteps"])
def test_one_level_for_all(module: Any, timesteps: bool, edit: Callable) -> None:
    nominal, level = level_map(timesteps)
    for wanted in (nominal, float(level.max())):
        uniform = torch.full_like(level, wanted)
        found, _ = ours(module, "epsilon", timesteps, edit, nominal, uniform)
        expected = hosts_at("epsilon", timesteps, edit, uniform)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 if wanted == nominal else 1e-4)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_is_written_into_the_hosts_own_numbers_is_told(module: Any, edit: Callable) -> None:
    """For a solver whose host goes on from them; a tensor put in their place is nothing to it."""
    nominal, level = level_map(False)
    _, model = ours(module, "epsilon", False, edit, nominal, level)
    if edit is in_place:
        torch.testing.assert_close(
            model.changed, torch.full((IMAGES, 1, 1, 1), 0.93, dtype=torch.float64), rtol=1e-6, atol=0
        )
    else:
        assert model.changed is None


@pytest.mark.parametrize("timesteps", [False, True], ids=["sigma", "timesteps"])
def test_an_exchanged_latent_is_the_networks_alone(module: Any, timesteps: bool) -> None:
    """The host makes eps of its own latent, not of the one that another extension gives the network."""

    def exchange(params: Any) -> None:
        params.x = 0.9 * params.x

    nominal, level = level_map(timesteps)
    found, _ = ours(module, "epsilon", timesteps, exchange, nominal, level)
    torch.testing.assert_close(found, hosts_at("epsilon", timesteps, exchange, level), rtol=0, atol=1e-4)


def test_a_wrapper_that_runs_the_batch_in_slices(module: Any) -> None:
    """It cuts what it knows of: the text, not our rows; twice, as it may compare."""

    def in_slices(apply_model: Callable, given: dict[str, Any]) -> Tensor:
        for _ in range(2):
            parts = [
                apply_model(given["input"][own], given["timestep"][own], **{**given["c"], "c_crossattn": text[own]})
                for own in (slice(0, IMAGES), slice(IMAGES, 2 * IMAGES))
                for text in [given["c"]["c_crossattn"]]
            ]
        return torch.cat(parts)

    nominal, level = level_map(False)
    checkpoint = forge.Checkpoint("epsilon")
    checkpoint.forge_objects.unet.model_options["model_function_wrapper"] = in_slices
    model = module.PixelDenoiser(forge.Denoiser(checkpoint, [in_place], False), arguments(), "sigma", IMAGES, None)
    with model.attached():
        found = model(latent(False), nominal, level)
    torch.testing.assert_close(found, hosts_at("epsilon", False, in_place, level), rtol=0, atol=1e-4)


# -- what goes on without


def test_an_unknown_network_is_not_worked_with(module: Any) -> None:
    checkpoint = forge.Checkpoint("epsilon")
    checkpoint.forge_objects.unet.model.diffusion_model = torch.nn.Linear(2, 2)
    denoiser = forge.Denoiser(checkpoint, [], False)
    model = module.PixelDenoiser(denoiser, arguments(), "sigma", IMAGES, None)
    with (
        pytest.raises(module.NotApplied, match="kind are not supported: Linear is a network that AsynDM does not know"),
        model.attached(),
    ):
        pass
    assert type(denoiser) is forge.Denoiser


def test_one_that_takes_no_timesteps_is_found_out_in_the_call(module: Any) -> None:
    """As a network of compiled parts: its modules are there, and not what runs."""
    checkpoint = forge.Checkpoint("epsilon")
    checkpoint.forge_objects.unet.model.apply_model = lambda x, t, c_crossattn: 0.9 * x
    denoiser = forge.Denoiser(checkpoint, [], False)
    model, (nominal, level) = module.PixelDenoiser(denoiser, arguments(), "sigma", IMAGES, None), level_map(False)
    with pytest.raises(module.NotApplied, match="did not take the per-pixel timesteps"), model.attached():
        model(latent(False), nominal, level)
    assert type(denoiser) is forge.Denoiser


def test_after_a_refiner_the_pass_cannot_begin_anew(module: Any) -> None:
    first, refiner = forge.Checkpoint("epsilon"), forge.Checkpoint("epsilon")
    refiner.forge_objects.unet.model.diffusion_model = torch.nn.Linear(2, 2)
    denoiser = forge.Denoiser(first, [], False)
    model, (nominal, level) = module.PixelDenoiser(denoiser, arguments(), "sigma", IMAGES, None), level_map(False)
    with pytest.raises(RuntimeError, match=r"AsynDM: .*Linear.*the refiner has taken over already"), model.attached():
        model(latent(False), nominal, level)
        denoiser.checkpoint = refiner
        model(latent(False), nominal, level)
    assert type(denoiser) is forge.Denoiser


def test_the_unguided_answer_after_guidance(module: Any) -> None:
    """Where the host keeps none itself; pixel by pixel, and the denoiser is asked for it at any CFG scale."""

    class Neo(forge.Denoiser):
        def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor, **kwargs: Any) -> Tensor:
            assert kwargs == {"model_options": {"disable_cfg1_optimization": True}}
            return super().forward(x, sigma, cond, uncond)

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
            return self.forward(*args, **kwargs)

    given, (nominal, level) = arguments(), level_map(False)
    model = module.PixelDenoiser(Neo(forge.Checkpoint("epsilon"), [], False), given, "sigma", IMAGES, None, uncond=True)
    with model.attached():
        model(latent(False), nominal, level)
    expected = torch.zeros(latent(False).shape)
    for one in level.unique().tolist():
        scalar, plain = torch.full((IMAGES,), one), forge.Denoiser(forge.Checkpoint("epsilon"), [], False)
        answer = plain(latent(False), scalar, cond=given["uncond"], uncond=given["uncond"])
        expected = torch.where(level == one, answer, expected)
    torch.testing.assert_close(model.last_uncond, expected, rtol=0, atol=1e-4)
    assert "model_options" not in given
