"""What Forge's relatives have in different places, looked up by structure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.nextdit import NextDiT
from torch import Tensor, nn

from asyndm_ext.hosts.forge import relatives
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.frames import Frames
from asyndm_ext.hosts.webui.network import NetworkHooks, is_compiled
from asyndm_ext.model.unet_time import UnsupportedModel


def over(sigma: Tensor) -> Tensor:
    return sigma.view(-1, 1, 1, 1)


class Eps:
    """As ComfyUI has it, and Forge Classic and reForge with it: a base class says what is predicted."""

    sigma_data = 1.0

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise / (over(sigma) ** 2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - output * over(sigma)


class V(Eps):
    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        total = over(sigma) ** 2 + self.sigma_data**2
        return x * self.sigma_data**2 / total - output * over(sigma) * self.sigma_data / total**0.5


class Edm(V):
    """Its answer has the other sign."""

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        total = over(sigma) ** 2 + self.sigma_data**2
        return x * self.sigma_data**2 / total + output * over(sigma) * self.sigma_data / total**0.5


class Const(Eps):
    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise


class OfAnotherSpread(V):
    sigma_data = 0.5


class Lcm(Eps):
    """An extension's own."""

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return 0.9 * super().calculate_denoised(sigma, output, x) + 0.1 * x


KINDS = {Eps: "epsilon", V: "v_prediction", Const: "const", Edm: None, OfAnotherSpread: None, Lcm: None, object: None}


@pytest.mark.parametrize(("kind", "said"), KINDS.items())
def test_what_is_predicted_is_asked_not_read_from_a_name(kind: type, said: str | None) -> None:
    class ModelSampling(kind):  # type: ignore[misc, valid-type]
        prediction_type = "epsilon"

    assert relatives.prediction_of(ModelSampling()) == said


def test_the_predictor_has_two_names() -> None:
    predictor = Eps()
    assert relatives.predictor_of(SimpleNamespace(predictor=predictor)) is predictor
    assert relatives.predictor_of(SimpleNamespace(model_sampling=predictor)) is predictor
    with pytest.raises(UnsupportedModel, match="has no predictor"):
        relatives.predictor_of(SimpleNamespace())


def test_model_options_go_where_the_denoiser_takes_them() -> None:
    class Forge:
        def forward(self, x: Tensor, sigma: Tensor, image_cond: Any) -> None: ...

    class Neo:
        def forward(self, x: Tensor, sigma: Tensor, image_cond: Any, **kwargs: Any) -> None: ...

    assert not relatives.takes_model_options(Forge())
    assert relatives.takes_model_options(Neo())


def test_control_nets_that_ask_and_that_do_not() -> None:
    class Asks:
        def get_control(self, x: Tensor, sigma: Tensor, cond: dict, batches: int) -> None:
            for modifier in cond["transformer_options"].get("controlnet_conditioning_modifiers", []):
                modifier(x)

    class DoesNot:
        def get_control(self, x: Tensor, sigma: Tensor, cond: dict, batches: int, options: dict) -> None: ...

    assert relatives.asks_modifiers(Asks())
    assert not relatives.asks_modifiers(DoesNot())


def test_a_compiled_network_is_left_alone() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    part = nn.Sequential(nn.Linear(2, 2))
    part[0].compile()
    assert not is_compiled(plain)
    assert is_compiled(part) and is_compiled(torch.compile(plain))
    with pytest.raises(UnsupportedModel, match="Sequential is compiled"):
        NetworkHooks(part, 0, 1)
    relatives.check_calls(loaded(diffusion_model=plain))
    with pytest.raises(UnsupportedModel, match="is compiled"):  # for each call anew
        relatives.check_calls(loaded(diffusion_model=plain, _torch_compile_config=("dynamic",)))


def test_a_relative_that_keeps_things_elsewhere_is_told_what_is_missed() -> None:
    with pytest.raises(UnsupportedModel, match=r"SimpleNamespace has no forge_objects\.unet\.model\.diffusion_model"):
        relatives.check_calls(loaded(transformer=nn.Linear(2, 2)))
    without_options = loaded(diffusion_model=nn.Linear(2, 2))
    del without_options.forge_objects.unet.model_options
    with pytest.raises(UnsupportedModel, match=r"has no forge_objects\.unet\.model_options"):
        relatives.check_calls(without_options)


@pytest.mark.parametrize("missing", ["time_scale", "rope_embedder"])
def test_a_network_that_only_looks_like_a_known_one_is_left_alone(missing: str) -> None:
    """ersatzForge's own class of Z-Image and Lumina 2 has the parts of Forge Neo's, and is told the time otherwise."""
    network = NextDiT(z_image=True)
    NetworkHooks(network, 1, 1)
    delattr(network, missing)
    with pytest.raises(UnsupportedModel, match=rf"NextDiT is another one than it seems \(.*{missing}.*\)"):
        NetworkHooks(network, 1, 1)


def loaded(**model: Any) -> Any:
    """A loaded model, as the hosts have it."""
    unet = SimpleNamespace(model=SimpleNamespace(**model), model_options={})
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=unet))


# -- latents of one frame


class Deep:
    """A host's guided model of latents ``(B,C,1,H,W)``."""

    last_uncond: Tensor | None = None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        assert x.shape == (2, 4, 1, 6, 8) and level.shape == (2, 1, 6, 8)
        self.last_uncond = -x
        return 2 * x

    def attention(self) -> Tensor:
        return torch.ones(2, 1, 3, 4)


def test_a_picture_of_a_video_model_is_a_picture_to_the_solver() -> None:
    x = torch.randn(2, 4, 1, 6, 8)
    frames, steps = Frames(x), []
    model = frames.model(Deep())
    flat = frames.flat(x)
    assert flat.shape == (2, 4, 6, 8) and torch.equal(frames.deep(flat), x)
    assert model.last_uncond is None
    assert torch.equal(model(flat, 1.0, torch.ones(2, 1, 6, 8)), 2 * flat)
    assert torch.equal(model.last_uncond, -flat)
    assert model.attention().shape == (2, 1, 3, 4)
    callback = frames.callback(steps.append)
    assert callback is not None
    callback({"i": 3, "x": flat, "denoised": 2 * flat})
    assert steps[0]["i"] == 3 and torch.equal(steps[0]["x"], x) and steps[0]["denoised"].shape == x.shape
    noise = frames.randn_like(lambda like: torch.full_like(like, len(like.shape)))
    assert torch.equal(noise(flat), torch.full_like(flat, 5))
    tree = frames.noise_sampler(lambda sigma, sigma_next: x)
    assert tree is not None and torch.equal(tree(torch.ones(()), torch.ones(())), flat)


def test_other_latents_stay_what_they_are() -> None:
    x, model = torch.randn(1, 4, 6, 8), Deep()
    frames = Frames(x)
    assert frames.model(model) is model and frames.flat(x) is x is frames.deep(x)
    assert frames.callback(None) is None and frames.callback(print) is print
    with pytest.raises(NotApplied, match="draws a video"):
        Frames(torch.zeros(1, 16, 5, 8, 8))
    with pytest.raises(NotApplied, match="latent has 3 dimensions"):
        Frames(torch.zeros(1, 16, 8))
