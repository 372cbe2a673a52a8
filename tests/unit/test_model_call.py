"""The rescaled model call against the network that the host's scalar call hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dit import NAMES, DiT, normal
from support.ldm_unet import LdmUNet
from torch import Tensor, nn

from asyndm_ext.model.call import eps_denoised, flow_denoised, v_denoised, v_to_eps
from asyndm_ext.model.dit_time import TokenTime
from asyndm_ext.model.network import attention_capture, is_dit, time_conditioning
from asyndm_ext.model.token_attention import TokenAttentionCapture
from asyndm_ext.model.unet_time import UNetTimeConditioning, UnsupportedModel


def network(x: Tensor) -> Tensor:
    """Some answer of the network to its scaled input; not linear, so that a wrong scale shows."""
    return torch.tanh(1.7 * x.roll(1, dims=-1)) + 0.1 * x**2


KINDS: dict[str, tuple[Callable, Callable[[Tensor, Tensor], Tensor]]] = {
    "eps": (eps_denoised, lambda x, s: x - s * network(x / (s**2 + 1).sqrt())),
    "v": (
        v_denoised,
        lambda x, s: x / (s**2 + 1) - s / (s**2 + 1).sqrt() * network(x / (s**2 + 1).sqrt()),
    ),
    "flow": (flow_denoised, lambda x, s: x - s * network(x)),
}
"""The call under test, and the denoised of a level (a map or a scalar), as its prediction type defines it."""


@pytest.mark.parametrize("kind", KINDS)
@given(nominal=st.floats(0.02, 1.0), seed=st.integers(0, 999))
@settings(deadline=None)
def test_a_map_through_a_scalar_call(kind: str, nominal: float, seed: int) -> None:
    call, denoised = KINDS[kind]
    x = normal(2, 4, 5, 7, seed=seed).double()
    m = torch.rand(2, 1, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.97 + 0.03
    s = torch.full((2, 1, 1, 1), nominal, dtype=torch.float64)
    found = call(lambda x_in: denoised(x_in, s), x, s, m)
    torch.testing.assert_close(found, denoised(x, m), rtol=1e-10, atol=1e-10)


@given(nominal=st.floats(0.005, 0.999), seed=st.integers(0, 999))
@settings(deadline=None)
def test_the_eps_of_a_v_prediction_through_a_scalar_call(nominal: float, seed: int) -> None:
    """Timestep samplers: the host has turned v into eps at its own level, and eps at the map is wanted."""
    x = normal(2, 4, 5, 7, seed=seed).double()
    alpha_m = torch.rand(2, 1, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.99 + 0.005
    alpha_s = torch.full((2, 1, 1, 1), nominal, dtype=torch.float64)
    v = network(x)

    def eps(alpha: Tensor) -> Tensor:
        return alpha.sqrt() * v + (1 - alpha).sqrt() * x

    torch.testing.assert_close(v_to_eps(eps(alpha_s), x, alpha_s, alpha_m), eps(alpha_m), rtol=1e-9, atol=1e-9)


def test_the_eps_of_a_v_prediction_is_the_noise_of_a_known_latent() -> None:
    """``x = sqrt(a) * clean + sqrt(1 - a) * noise`` has ``v = sqrt(a) * noise - sqrt(1 - a) * clean``."""
    clean, noise = normal(1, 4, 3, 5, seed=1).double(), normal(1, 4, 3, 5, seed=2).double()
    alpha_m = torch.linspace(0.01, 0.99, 15, dtype=torch.float64).view(1, 1, 3, 5)
    alpha_s = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
    x = alpha_m.sqrt() * clean + (1 - alpha_m).sqrt() * noise
    v = alpha_m.sqrt() * noise - (1 - alpha_m).sqrt() * clean
    at_nominal = alpha_s.sqrt() * v + (1 - alpha_s).sqrt() * x
    torch.testing.assert_close(v_to_eps(at_nominal, x, alpha_s, alpha_m), noise, rtol=1e-10, atol=1e-10)


def test_the_flows_network_sees_the_latent_as_it_is() -> None:
    x, seen = normal(1, 16, 4, 6, seed=1), []
    flow_denoised(lambda x_in: seen.append(x_in) or x_in, x, torch.full((1, 1, 1, 1), 0.5), torch.rand(1, 1, 4, 6))
    assert len(seen) == 1 and torch.equal(seen[0], x)


# -- which hooks a network takes


@pytest.mark.parametrize("name", NAMES)
def test_transformers_are_known_by_their_structure(name: str) -> None:
    net = DiT(name).net
    assert is_dit(net)
    time = time_conditioning(net)
    assert isinstance(time, TokenTime) and time.patch == DiT(name).kind.patch and time.by_sigma
    assert isinstance(attention_capture(net, 1, 1), TokenAttentionCapture)


def test_unets_are_no_transformers() -> None:
    net = LdmUNet()
    assert not is_dit(net)
    assert isinstance(time_conditioning(net), UNetTimeConditioning)
    with pytest.raises(UnsupportedModel, match="LdmUNet has no cross-attention"):
        attention_capture(net, 1, 1)


def test_what_looks_like_flux_and_is_modulated_otherwise_is_refused() -> None:
    net: Any = nn.Module()
    net.double_blocks, net.time_in = nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 2)
    assert not is_dit(net)
    with pytest.raises(UnsupportedModel):
        time_conditioning(net)
