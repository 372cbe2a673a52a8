"""What the tests of the solvers share: an analytic model, countable noise, schedules, one run of a solver."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS, Solver
from support.kdiffusion import k_diffusion

SHAPE = (2, 3, 4, 5)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MEAN = randn(*SHAPE, seed=1)
SPREAD = randn(*SHAPE, seed=2).abs() + 0.2
STRENGTHS = torch.tensor([0.0, 0.1, 0.4, 0.55, 0.7, 0.7, 0.95, 1.0, 0.0, 0.3], dtype=torch.float64).repeat(4)
CHURN = {"s_churn": 6.0, "s_tmin": 0.2, "s_tmax": 9.0, "s_noise": 1.007}


class Gaussian:
    """Exact denoiser of independent Gaussians, one per value, bent by a sine; no pixel sees another."""

    def __init__(self, space: str, mean: Tensor = MEAN, spread: Tensor = SPREAD) -> None:
        self.space, self.mean, self.spread = space, mean, spread
        self.nominals: list[float] = []
        self.levels: list[Tensor] = []

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        assert level.dtype == torch.float64 and level.device.type == "cpu"
        self.nominals.append(nominal)
        self.levels.append(level.clone())
        return self.denoised(x, level) if self.space == "sigma" else self.eps(x, level)

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        s2, v = sigma**2, self.spread**2
        return (v * x + s2 * self.mean) / (v + s2) + 0.1 * (x + sigma).sin()

    def eps(self, x: Tensor, t: Tensor) -> Tensor:
        a = TABLE.alpha_at(t)
        posterior = (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.spread**2 + 1 - a)
        return posterior + 0.1 * (x + t / 100).sin()

    def attention(self) -> None:
        return None


def noise_table() -> NoiseTable:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return NoiseTable.from_alphas_cumprod(torch.cumprod(1 - betas, dim=0))


TABLE = noise_table()


class Noise:
    """The same normals for everyone who asks in the same order; ``at`` picks one pixel of them."""

    def __init__(self, at: tuple[slice, slice, slice, slice] = (slice(None),) * 4) -> None:
        self.at = at
        self.drawn = 0

    def __call__(self, x: Tensor, *_: Tensor) -> Tensor:
        self.drawn += 1
        return randn(*SHAPE, seed=1000 + self.drawn)[self.at].to(x.dtype)


class Tree:
    """Stands for a Brownian tree: remembers the intervals that it is asked about, to the last bit."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.asked: list[tuple[float, float]] = []

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        self.asked.append((float(sigma), float(sigma_next)))
        return self.noise(torch.empty(0, dtype=torch.float64))


class Changing:
    """A region whose strength map is given per step."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps
        self.seen = 0

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        self.seen += 1

    def strength(self, progress: float = 0.0) -> Tensor:
        return self.maps[max(self.seen - 1, 0) % len(self.maps)]


def sigma_schedule(name: str, steps: int) -> Tensor:
    sampling, _ = k_diffusion()
    if name == "karras":
        sigmas = sampling.get_sigmas_karras(steps, 0.03, 14.6)
    elif name == "exponential":
        sigmas = sampling.get_sigmas_exponential(steps, 0.03, 14.6)
    else:
        sigmas = torch.linspace(14.6, 0.0, steps + 1)
    return sigmas.double()


def webui_timesteps(steps: int) -> Tensor:
    """Ascending, as the WebUI makes them; sampling walks them backwards and ends on the first."""
    return (torch.arange(0, 1000, 1000 // steps) + 1).clamp(0, 999)


def sample(
    name: str, base: BaseSchedule, region, curve: str, x: Tensor, *, model=None, noise=None, watch=None, **options
) -> Tensor:
    solver = SOLVERS[name]
    schedule = PixelSchedule(base, (x.shape[0], 1, *x.shape[-2:]), curve)
    noise = noise or Noise()
    host = FromHost(randn_like=noise, table=TABLE, watch=watch)
    run = Run(model or Gaussian(solver.space), schedule, region, x, host)
    return solver.sample(run, x, **options)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert bool(found.isfinite().all())
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < tolerance, f"{difference:.2e} relative"


class Network:
    """A guided network of one prediction type, behind its host's formula for denoised; no pixel sees another.

    Args:
        kind: "eps", "v" (noise levels) or "flow".
        guidance: CFG scale; 1 makes the guided and the unguided answer one.
    """

    def __init__(self, kind: str, guidance: float = 1.6, at: tuple[slice, ...] = (slice(None),) * 4) -> None:
        self.kind, self.guidance, self.mean = kind, guidance, MEAN[at]
        self.nominals: list[float] = []
        self.levels: list[Tensor] = []
        self.last_uncond: Tensor | None = None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        assert level.dtype == torch.float64 and level.device.type == "cpu"
        self.nominals.append(nominal)
        self.levels.append(level.clone())
        denoised, self.last_uncond = self.answers(x, level)
        return denoised

    def answers(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Denoised with and without guidance."""
        x_in = x if self.kind == "flow" else x / (sigma**2 + 1).sqrt()
        without = 0.9 * x_in + 0.2 * (2 * x_in + self.mean).sin()
        prompt = without - 0.3 * (x_in - self.mean).cos()
        output = without + self.guidance * (prompt - without)
        return self.denoised(x, sigma, output), self.denoised(x, sigma, without)

    def denoised(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        if self.kind == "v":
            return x / (sigma**2 + 1) + (output - x / (sigma**2 + 1).sqrt()) * sigma / (sigma**2 + 1).sqrt()
        return x - sigma * output

    def attention(self) -> None:
        return None


KINDS = ("eps", "v", "flow")
FLOW_SHIFT = 3.0


def flow_sigma(t: Tensor, shift: float = FLOW_SHIFT) -> Tensor:
    """SD3's sigma at a share of the timesteps."""
    return shift * t / (1 + (shift - 1) * t)


def flow_schedule(name: str, steps: int) -> Tensor:
    """Sigmas of a rectified flow: Simple with and without shift, from 1; Exponential; one that ends above 0."""
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    if name == "simple":
        return even
    if name == "shifted":
        return flow_sigma(even)
    if name == "exponential":
        return torch.cat([torch.linspace(0, -2, steps, dtype=torch.float64).exp(), even.new_zeros(1)])
    return flow_sigma(torch.linspace(0.9, 0.04, steps + 1, dtype=torch.float64))


SCHEDULES = ("karras", "exponential", "linear", "no zero")
FLOW_SCHEDULES = ("simple", "shifted", "exponential", "no zero")
# A name for each kind and schedule type that goes with it.
KINDS_AND_SCHEDULES = [(kind, s) for kind in KINDS for s in (FLOW_SCHEDULES if kind == "flow" else SCHEDULES)]


def schedule_for(kind: str, name: str, steps: int = 11) -> Tensor:
    if kind == "flow":
        return flow_schedule(name, steps)
    return sigma_schedule("karras", steps + 1)[:-1] if name == "no zero" else sigma_schedule(name, steps)


def percent_to_sigma(kind: str) -> Callable[[float], float]:
    """The model's sigma at a share of the way down."""
    if kind == "flow":
        return lambda percent: float(flow_sigma(torch.tensor(1 - percent, dtype=torch.float64)))
    return TABLE.sigma_at


def start_of(kind: str, sigmas: Tensor, seed: int = 3) -> Tensor:
    """The latent that the host starts from."""
    noise = randn(*SHAPE, seed=seed)
    return sigmas[0] * noise + (1 - sigmas[0]) * MEAN if kind == "flow" else sigmas[0] * noise


def run_solver(
    solver: Solver,
    kind: str,
    sigmas: Tensor,
    region,
    x: Tensor,
    curve: str = "quadratic",
    options: dict | None = None,
    base: BaseSchedule | None = None,
    **runs,
) -> Tensor:
    """As a host does it, for a model of this kind; ``runs`` are further arguments of the run."""
    model = runs.pop("model", None) or Network(kind)
    percent = percent_to_sigma(kind)
    flow = kind == "flow"
    base = base or solver.schedule({"sigmas": sigmas, "flow": flow, "percent_to_sigma": percent})
    schedule = PixelSchedule(base, (x.shape[0], 1, *x.shape[-2:]), curve)
    runs = {"randn_like": Noise(), "table": TABLE, "flow": flow, "percent_to_sigma": percent} | runs
    return solver.sample(Run(model, schedule, region, x, FromHost(**runs)), x, **(options or {}))
