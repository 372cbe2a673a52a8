"""Solvers: the host's results on its own schedule, and each pixel as if it were sampled alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from support.kdiffusion import k_diffusion
from support.solvers import (
    CHURN,
    MEAN,
    SHAPE,
    SPREAD,
    STRENGTHS,
    TABLE,
    Changing,
    Gaussian,
    Noise,
    Tree,
    close,
    randn,
    sample,
    sigma_schedule,
    webui_timesteps,
)
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run, StepRecord
from asyndm_ext.solvers import SOLVERS

# -- equal to the host on the host's schedule


K_DIFFUSION_CASES = [
    ("Euler", "sample_euler", {}),
    ("Euler", "sample_euler", {"s_churn": 40.0}),
    ("Euler", "sample_euler", CHURN),
    ("Euler", "sample_euler", {**CHURN, "s_churn": 1e3}),
    ("Euler a", "sample_euler_ancestral", {"eta": 0.0}),
    ("Euler a", "sample_euler_ancestral", {"eta": 0.5}),
    ("Euler a", "sample_euler_ancestral", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM++ 2M", "sample_dpmpp_2m", {}),
    ("Heun", "sample_heun", {}),
    ("Heun", "sample_heun", CHURN),
    ("DPM2", "sample_dpm_2", {}),
    ("DPM2", "sample_dpm_2", CHURN),
    ("DPM2 a", "sample_dpm_2_ancestral", {"eta": 0.0}),
    ("DPM2 a", "sample_dpm_2_ancestral", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM++ 2S a", "sample_dpmpp_2s_ancestral", {"eta": 0.5}),
    ("DPM++ 2S a", "sample_dpmpp_2s_ancestral", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM++ SDE", "sample_dpmpp_sde", {"eta": 0.5}),
    ("DPM++ SDE", "sample_dpmpp_sde", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", {"eta": 0.0}),
    ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM++ 2M SDE Heun", "sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}),
    ("DPM++ 2M SDE Heun", "sample_dpmpp_2m_sde", {"eta": 1.0, "s_noise": 0.9, "solver_type": "heun"}),
    ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", {"eta": 0.0}),
    ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", {"eta": 1.0, "s_noise": 0.9}),
    ("LMS", "sample_lms", {}),
    ("LMS", "sample_lms", {"order": 2}),
]


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
@pytest.mark.parametrize("schedule", ["karras", "exponential", "linear", "no zero"])
@pytest.mark.parametrize(("name", "function", "options"), K_DIFFUSION_CASES)
def test_strength_zero_is_k_diffusion(name, function, options, schedule, curve, monkeypatch) -> None:
    sampling, _ = k_diffusion()
    sigmas = sigma_schedule("karras", 12)[:-1] if schedule == "no zero" else sigma_schedule(schedule, 11)
    x = randn(*SHAPE, seed=3) * sigmas[0]
    model, asked = Gaussian("sigma"), []

    def theirs(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return model.denoised(x, sigma.view(-1, 1, 1, 1))

    their_noise, our_noise, reports, our_reports = Noise(), Noise(), [], []
    their_tree, our_tree = Tree(their_noise), Tree(our_noise)
    tree = {"noise_sampler": their_tree} if SOLVERS[name].brownian else {}
    monkeypatch.setattr(sampling.torch, "randn_like", their_noise)
    keep = reports.append
    expected = getattr(sampling, function)(theirs, x, sigmas, callback=keep, disable=True, **tree, **options)
    monkeypatch.undo()

    ours = Gaussian("sigma")
    schedule_map = PixelSchedule(BaseSchedule.from_sigmas(sigmas), (2, 1, 4, 5), curve)
    region = FixedRegion.everything((2, 1, 4, 5), 0.0)
    our_noises = {"randn_like": our_noise, "noise_sampler": our_tree}
    run = Run(ours, schedule_map, region, x, FromHost(callback=our_reports.append, **our_noises))
    found = SOLVERS[name].sample(run, x, **{key: value for key, value in options.items() if key != "solver_type"})
    close(found, expected, 1e-10)
    assert our_noise.drawn == their_noise.drawn, "the seed would give another picture"
    assert our_tree.asked == their_tree.asked, "a Brownian tree would give another picture"
    assert ours.nominals == pytest.approx(asked, rel=1e-12)
    assert all(bool((level == level.flatten()[0]).all()) for level in ours.levels)
    # The host's callback sees the host's scalars and the same latents.
    assert [r["i"] for r in our_reports] == [r["i"] for r in reports]
    assert [float(r["sigma"]) for r in our_reports] == pytest.approx([float(r["sigma"]) for r in reports], rel=1e-6)
    for mine, their in zip(our_reports, reports, strict=True):
        close(mine["x"], their["x"], 1e-10)
        close(mine["denoised"], their["denoised"], 1e-10)


def webui_ddim(x: Tensor, timesteps: Tensor, eta: float, noise: Noise) -> Tensor:
    """The DDIM update of Song et al. (2020), between neighbours of the WebUI's list, in Python floats."""
    model = Gaussian("timestep")
    levels = [float(TABLE.alphas_cumprod[int(t)]) for t in timesteps]
    for k in range(len(levels) - 1, 0, -1):
        here, there = levels[k], levels[k - 1]
        eps = model.eps(x, torch.full((1, 1, 1, 1), float(timesteps[k]), dtype=torch.float64))
        std = eta * math.sqrt((1 - there) / (1 - here)) * math.sqrt(1 - here / there)
        clean = (x - math.sqrt(1 - here) * eps) / math.sqrt(here)
        x = math.sqrt(there) * clean + math.sqrt(1 - there - std**2) * eps + std * noise(x)
    return x


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 10, 20, 30])
def test_strength_zero_is_the_webuis_ddim(steps: int, eta: float) -> None:
    timesteps = webui_timesteps(steps)
    base = BaseSchedule.from_timesteps(timesteps.flip(0))
    assert base.steps == len(timesteps) - 1
    x = randn(*SHAPE, seed=4)
    their_noise, our_noise, model = Noise(), Noise(), Gaussian("timestep")
    expected = webui_ddim(x, timesteps, eta, their_noise)
    region = FixedRegion.everything((2, 1, 4, 5), 0.0)
    found = sample("DDIM", base, region, "exponential", x, model=model, noise=our_noise, eta=eta)
    if base.steps:
        close(found, expected, 1e-10)
        assert model.nominals == timesteps.flip(0)[:-1].tolist()
    assert our_noise.drawn == their_noise.drawn == base.steps


# -- each pixel as if alone


PIXELWISE_CASES = [
    ("Euler", {}),
    ("Euler", CHURN),
    ("Euler a", {"eta": 0.5}),
    ("Euler a", {"eta": 1.0}),
    ("DPM++ 2M", {}),
    ("Heun", {}),
    ("Heun", CHURN),
    ("DPM2", {}),
    ("DPM2", CHURN),
    ("DPM2 a", {}),
    ("DPM2 a", {"eta": 1.2}),
    ("DPM++ 2S a", {}),
    ("DPM++ 2S a", {"eta": 1.2}),
    ("DPM++ SDE", {}),
    ("DPM++ 2M SDE", {}),
    ("DPM++ 2M SDE Heun", {}),
    ("DPM++ 3M SDE", {"eta": 0.0}),
    ("DPM++ 3M SDE", {}),
    ("LMS", {}),
    ("LCM", {}),
    ("HeunPP2", {}),
    ("IPNDM", {}),
    ("IPNDM_V", {}),
    ("DEIS", {}),
    ("DDPM", {}),
    ("DDIM", {"eta": 0.0}),
    ("DDIM", {"eta": 0.3}),
    ("DDIM", {"eta": 1.0}),
]


def base_for(name: str, steps: int, schedule: str = "karras") -> BaseSchedule:
    if SOLVERS[name].space == "timestep":
        return BaseSchedule.from_timesteps(webui_timesteps(steps).flip(0))
    return BaseSchedule.from_sigmas(sigma_schedule(schedule, steps))


ROWS = ((0, 0), (1, 1))  # of the first and the second image: between them every strength once


def rows(latent: Tensor) -> Tensor:
    return torch.stack([latent[b, :, i] for b, i in ROWS])


def alone(name: str, base: BaseSchedule, region_of: Callable, curve: str, x: Tensor, options: dict) -> Tensor:
    """Every pixel of ``ROWS`` sampled as a 1x1 latent of one image."""
    result = torch.empty_like(x)
    for b, i in ROWS:
        for j in range(x.shape[3]):
            at = (slice(b, b + 1), slice(None), slice(i, i + 1), slice(j, j + 1))
            model = Gaussian(SOLVERS[name].space, MEAN[at], SPREAD[at])
            result[at] = sample(name, base, region_of(at), curve, x[at], model=model, noise=Noise(at), **options)
    return rows(result)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("name", "options"), PIXELWISE_CASES)
def test_a_pixel_of_a_map_is_the_pixel_alone(name: str, options: dict, curve: str) -> None:
    base = base_for(name, 10)
    strength = STRENGTHS.view(2, 1, 4, 5)
    x = randn(*SHAPE, seed=5) * (base.nominal(0) if SOLVERS[name].space == "sigma" else 1.0)
    found = sample(name, base, FixedRegion(strength), curve, x, **options)
    expected = alone(name, base, lambda at: FixedRegion(strength[at[0], :, at[2], at[3]]), curve, x, options)
    close(rows(found), expected, 1e-12)
    plain = sample(name, base, FixedRegion.everything((2, 1, 4, 5), 0.0), curve, x, **options)
    moved = (found - plain).abs().amax(dim=1, keepdim=True)
    assert bool((moved[strength == 0] == 0).all()), "a pixel on the host's schedule is the host's pixel"
    if curve != "linear":
        assert bool((moved[strength > 0] > 1e-6).all()), "a slow pixel is another one"


@pytest.mark.parametrize(("name", "options"), PIXELWISE_CASES)
def test_a_pixel_with_a_changing_mask_is_the_pixel_alone(name: str, options: dict) -> None:
    base = base_for(name, 8, "exponential")
    generator = torch.Generator().manual_seed(6)
    maps = [STRENGTHS.view(2, 1, 4, 5) * torch.randint(2, (2, 1, 4, 5), generator=generator) for _ in range(base.steps)]
    x = randn(*SHAPE, seed=7) * (base.nominal(0) if SOLVERS[name].space == "sigma" else 1.0)
    found = sample(name, base, Changing(maps), "exponential", x, **options)
    expected = alone(
        name, base, lambda at: Changing([m[at[0], :, at[2], at[3]] for m in maps]), "exponential", x, options
    )
    close(rows(found), expected, 1e-12)


@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
@pytest.mark.parametrize(
    ("name", "function", "options"),
    [
        ("DPM++ 2M", "sample_dpmpp_2m", {}),
        ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", {"eta": 0.0}),
        ("DPM++ 2M SDE Heun", "sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}),
        ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", {"eta": 0.0}),
        ("LMS", "sample_lms", {}),
    ],
)
def test_multistep_uses_each_pixels_own_step_sizes(name: str, function: str, options: dict, curve: str) -> None:
    """A slow pixel's walk is k-diffusion's own on the sigmas that this pixel passes."""
    sampling, _ = k_diffusion()
    base = BaseSchedule.from_sigmas(sigma_schedule("karras", 12))
    schedule = PixelSchedule(base, (1, 1, 1, 1), curve)
    own = [schedule.level.flatten()]
    own += [schedule.advance(torch.tensor(0.7, dtype=torch.float64)).flatten() for _ in range(base.steps)]
    x = randn(*SHAPE, seed=8) * 14.6
    model = Gaussian("sigma")

    def theirs(x: Tensor, sigma: Tensor) -> Tensor:
        return model.denoised(x, sigma.view(-1, 1, 1, 1))

    no_noise = {"noise_sampler": lambda *_: torch.zeros_like(x)} if SOLVERS[name].brownian else {}
    expected = getattr(sampling, function)(theirs, x, torch.cat(own), disable=True, **no_noise, **options)
    region = FixedRegion.everything((2, 1, 4, 5), 0.7)
    found = sample(name, base, region, curve, x, **{key: value for key, value in options.items() if key == "eta"})
    close(found, expected, 1e-10)


@pytest.mark.parametrize(
    ("name", "function", "steps"), [("LMS", "sample_lms", 120), ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", 6)]
)
def test_a_long_step_of_the_hosts_own_is_taken_as_the_host_does(name: str, function: str, steps: int) -> None:
    """Exponential's step to 0 after 120 steps, and Beta's last steps, are longer than a pixel's may get otherwise."""
    sampling, _ = k_diffusion()
    sigmas = sigma_schedule("exponential", steps)
    if name == "DPM++ 3M SDE":
        sigmas = torch.tensor([14.6, 13.9, 13.2, 9.0, 0.5, 0.03, 0.0], dtype=torch.float64)
    x, model = randn(*SHAPE, seed=14) * 14.6, Gaussian("sigma")

    def theirs(x: Tensor, sigma: Tensor) -> Tensor:
        return model.denoised(x, sigma.view(-1, 1, 1, 1))

    no_noise = {"eta": 0.0, "noise_sampler": lambda *_: torch.zeros_like(x)} if SOLVERS[name].brownian else {}
    expected = getattr(sampling, function)(theirs, x, sigmas, disable=True, **no_noise)
    ours = {"eta": 0.0} if SOLVERS[name].brownian else {}
    region = FixedRegion.everything((2, 1, 4, 5), 0.0)
    close(sample(name, BaseSchedule.from_sigmas(sigmas), region, "quadratic", x, **ours), expected, 1e-10)


# -- steps of no length


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("steps", [2, 7, 20, 50])
@pytest.mark.parametrize(("name", "options"), PIXELWISE_CASES)
def test_a_pixel_that_stands_still_stays_finite(name: str, options: dict, steps: int, dtype: torch.dtype) -> None:
    """Strength 1 on the piecewise linear curve: half of the steps have no length."""
    base = base_for(name, steps)
    x = (randn(*SHAPE, seed=9) * (base.nominal(0) if SOLVERS[name].space == "sigma" else 1.0)).to(dtype)
    strength = torch.ones(2, 1, 4, 5, dtype=torch.float64)
    strength[..., :2] = 0.0
    records: list[StepRecord] = []
    found = sample(name, base, FixedRegion(strength), "piecewise linear", x, watch=records.append, **options)
    assert [record.step for record in records] == list(range(base.steps))
    levels = [record.level[..., 2:] for record in records]
    still = [torch.equal(before, after) for before, after in pairwise(levels)]
    assert sum(still) >= (base.steps - 1) // 2
    assert bool(found.isfinite().all())
    plain = sample(name, base, FixedRegion.everything((2, 1, 4, 5), 0.0), "piecewise linear", x, **options)
    # The data have a spread of about one; second order methods overshoot in two steps, the host's as well.
    assert found.abs().max() < max(20.0, 2 * float(plain.abs().max()))
    assert torch.equal(found[..., :2], plain[..., :2])


MULTISTEP = [
    ("DPM++ 2M", {}),
    ("DPM++ 2M SDE", {"eta": 0.0}),
    ("DPM++ 2M SDE Heun", {"eta": 0.0}),
    ("DPM++ 3M SDE", {"eta": 0.0}),
    ("LMS", {}),
    ("IPNDM", {}),
    ("IPNDM_V", {}),
    ("DEIS", {}),
]


@pytest.mark.parametrize("strength", [0.85, 0.95, 0.99, 0.996, 0.9999, 1 - 1e-7, 1 - 1e-12, 1.0])
@pytest.mark.parametrize(("name", "options"), MULTISTEP)
def test_multistep_does_not_magnify_the_change_around_a_pixel_that_hardly_moved(
    name: str, options: dict, strength: float
) -> None:
    """A network's answer at a pixel also changes with its surroundings; here it does so with the nominal level."""
    seen = []

    class Context(Gaussian):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.append(float((x / (level**2 + 1).sqrt()).abs().max()))
            return torch.full_like(x, 0.1 * math.sin(3 * nominal))

    base = base_for(name, 20)
    x = randn(*SHAPE, seed=13) * 14.6
    region = FixedRegion.everything((2, 1, 4, 5), strength)
    sample(name, base, region, "piecewise linear", x, model=Context("sigma"), **options)
    assert max(seen) < 1.2 * seen[0], "the latent leaves its noise level"


def test_an_ode_step_of_no_length_changes_nothing() -> None:
    """Seen from what the model is shown. LCM draws fresh noise in every step, and its latent stays nowhere."""
    for name, options in PIXELWISE_CASES:
        if name == "LCM" or "s_churn" in options:
            continue
        base = base_for(name, 20)
        x = randn(*SHAPE, seed=10)
        seen = []
        solver = SOLVERS[name]

        class Watching(Gaussian):
            def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
                seen.append(x)  # noqa: B023
                return super().__call__(x, nominal, level)

        region = FixedRegion.everything((2, 1, 4, 5), 1.0)
        sample(name, base, region, "piecewise linear", x, model=Watching(solver.space), **options)
        for early in seen[1:9]:
            close(early, x, 1e-13)
        assert (seen[-1] - x).abs().max() > 0.1


def test_ddim_never_meets_a_negative_variance() -> None:
    # 1 - a' - sigma^2 is negative near the end of the schedule for eta above 1: the noise is limited, never NaN.
    base = base_for("DDIM", 20)
    x = randn(*SHAPE, seed=11)
    found = sample("DDIM", base, FixedRegion(STRENGTHS.view(2, 1, 4, 5)), "quadratic", x, eta=1.5)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 20


def test_a_timestep_solver_needs_the_table() -> None:
    base = base_for("DDIM", 5)
    x = randn(*SHAPE, seed=12)
    region = FixedRegion(STRENGTHS.view(2, 1, 4, 5))
    run = Run(Gaussian("timestep"), PixelSchedule(base, (2, 1, 4, 5), "linear"), region, x)
    with pytest.raises(RuntimeError, match="alphas_cumprod"):
        SOLVERS["DDIM"].sample(run, x)
