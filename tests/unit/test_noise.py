"""The noise table against its own nodes and against k-diffusion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.kdiffusion import k_diffusion
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable


def alphas_cumprod(steps: int = 1000) -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


TABLE = NoiseTable.from_alphas_cumprod(alphas_cumprod())


def test_the_table_is_the_variance_exploding_sigma() -> None:
    a = alphas_cumprod()
    assert torch.equal(TABLE.alphas_cumprod, a)
    assert (TABLE.log_sigmas.exp() - ((1 - a) / a).sqrt()).abs().max() < 1e-12
    assert (NoiseTable(TABLE.log_sigmas).alphas_cumprod - a).abs().max() < 1e-14


def test_sigma_to_t_inverts_the_table() -> None:
    t = TABLE.sigma_to_t(TABLE.log_sigmas.exp())
    assert (t - torch.arange(1000)).abs().max() < 1e-9


@given(st.integers(0, 998), st.floats(0, 1))
def test_sigma_to_t_is_linear_in_the_logarithm(low: int, share: float) -> None:
    log_sigma = (1 - share) * TABLE.log_sigmas[low] + share * TABLE.log_sigmas[low + 1]
    assert abs(float(TABLE.sigma_to_t(log_sigma.exp())) - (low + share)) < 1e-8


def test_beyond_the_table_is_its_end() -> None:
    sigmas = torch.tensor([1e-6, float(TABLE.log_sigmas[0].exp()) * 0.999, 1e4], dtype=torch.float64)
    assert TABLE.sigma_to_t(sigmas).tolist() == [0.0, 0.0, 999.0]


def test_equals_k_diffusion() -> None:
    _, external = k_diffusion()
    a = alphas_cumprod()
    theirs = external.DiscreteSchedule(((1 - a) / a).sqrt(), quantize=False)
    sigmas = torch.cat([torch.logspace(-1.6, 1.2, 500), theirs.sigmas[::37].float(), torch.tensor([0.02, 20.0])])
    expected = theirs.sigma_to_t(sigmas.double())
    assert (TABLE.sigma_to_t(sigmas) - expected).abs().max() < 1e-9
    # As it runs in a host, in float32.
    theirs32 = external.DiscreteSchedule(((1 - a) / a).sqrt().float(), quantize=False)
    table32 = NoiseTable(theirs32.log_sigmas)
    assert (table32.sigma_to_t(sigmas) - theirs32.sigma_to_t(sigmas)).abs().max() < 1e-2
    assert (
        TABLE.sigma_to_t(theirs.t_to_sigma(torch.tensor([0.0, 12.25, 500.5, 999.0])))
        - expected.new_tensor([0.0, 12.25, 500.5, 999.0])
    ).abs().max() < 1e-4


def test_maps_are_elementwise() -> None:
    generator = torch.Generator().manual_seed(1)
    sigma = torch.rand(2, 1, 5, 7, generator=generator, dtype=torch.float64) * 15 + 0.02
    assert torch.equal(TABLE.sigma_to_t(sigma), TABLE.sigma_to_t(sigma.flatten()).view(2, 1, 5, 7))
    turned = sigma.transpose(2, 3)
    assert torch.equal(TABLE.sigma_to_t(turned), TABLE.sigma_to_t(sigma).transpose(2, 3))
    t = TABLE.sigma_to_t(sigma).round()
    assert torch.equal(TABLE.alpha_at(t), alphas_cumprod()[t.flatten().long()].view_as(t))
    assert torch.equal(TABLE.alpha_at(torch.tensor([-3.0, 1005.0])), alphas_cumprod()[[0, -1]])


# -- the other ways through the table, with numpy


LOG_SIGMAS = 0.5 * np.log((1 - alphas_cumprod().numpy()) / alphas_cumprod().numpy())
LOG_ALPHAS = 0.5 * np.log(alphas_cumprod().numpy())


@given(st.floats(0, 1))
def test_the_sigma_at_a_share_is_straight_in_the_logarithm(percent: float) -> None:
    expected = math.exp(np.interp((1 - percent) * 999, np.arange(1000), LOG_SIGMAS))
    assert TABLE.sigma_at(percent) == pytest.approx(expected, rel=1e-12)


def test_the_shares_0_and_1_are_the_ends_of_the_table() -> None:
    assert TABLE.sigma_at(0.0) == pytest.approx(math.exp(LOG_SIGMAS[-1]), rel=1e-14)
    assert TABLE.sigma_at(1.0) == pytest.approx(math.exp(LOG_SIGMAS[0]), rel=1e-14)


@given(st.one_of(st.floats(0, 999), st.sampled_from([0.0, 1.0, 998.0, 998.5, 999.0])))
def test_half_log_snr_is_straight_in_log_alpha_and_timestep_of_is_its_inverse(t: float) -> None:
    log_alpha = float(np.interp(t, np.arange(1000), LOG_ALPHAS))
    expected = log_alpha - 0.5 * math.log(-math.expm1(2 * log_alpha))
    found = TABLE.half_log_snr(torch.tensor([t], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert float(TABLE.timestep_of(found)) == pytest.approx(t, abs=1e-6)


def test_half_log_snr_of_whole_timesteps_is_the_tables() -> None:
    found = TABLE.half_log_snr(torch.arange(1000, dtype=torch.float64))
    assert np.abs(found.numpy() + LOG_SIGMAS).max() < 1e-9


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_timestep_that_is_no_number_is_refused(bad: float) -> None:
    """As a whole number it would be some timestep or other."""
    with pytest.raises(RuntimeError, match="not finite"):
        TABLE.alpha_at(torch.tensor([3.0, bad]))
