"""The sigmas that the hosts' schedule types make, written once more: ``make(n, levels)``, in float32 like them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from support.solvers import TABLE, flow_sigma


@dataclass(frozen=True)
class Levels:
    """A model's sigmas, rising, and its timesteps."""

    sigmas: Tensor
    at: Callable[[Tensor], Tensor]
    timestep: Callable[[float], float]

    @property
    def low(self) -> float:
        return float(self.sigmas[0])

    @property
    def high(self) -> float:
        return float(self.sigmas[-1])


def noise_levels() -> Levels:
    """SD's."""
    sigmas = TABLE.log_sigmas.exp().float()

    def at(t: Tensor) -> Tensor:
        low, high = t.floor().long(), t.ceil().long()
        return torch.lerp(sigmas[low].log(), sigmas[high].log(), t - low).exp()

    return Levels(sigmas, at, lambda sigma: float(TABLE.sigma_to_t(torch.tensor([sigma]))))


def flow_levels() -> Levels:
    """SD3's. Its timestep is a thousand times the sigma, and the sigma of a timestep is shifted."""
    sigmas = flow_sigma(torch.arange(1, 1001) / 1000).float()
    return Levels(sigmas, lambda t: flow_sigma(t / 1000).float(), lambda sigma: 1000 * sigma)


def zero_at_end(sigmas: Tensor | list[float]) -> Tensor:
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def timesteps(m: Levels, count: int) -> Tensor:
    return torch.linspace(m.timestep(m.high), m.timestep(m.low), count)


def uniform(n: int, m: Levels) -> Tensor:
    return zero_at_end(m.at(torch.linspace(len(m.sigmas) - 1, 0, n)))


def karras(n: int, m: Levels) -> Tensor:
    ramp = torch.linspace(0, 1, n)
    return zero_at_end((m.high ** (1 / 7) + ramp * (m.low ** (1 / 7) - m.high ** (1 / 7))) ** 7)


def karras_dynamic(n: int, m: Levels) -> Tensor:
    ramp, power = torch.linspace(0, 1, n), torch.tensor([7 + 2 * math.cos(i * math.tau / n) for i in range(n)])
    return zero_at_end((m.high ** (1 / 7) + ramp * (m.low ** (1 / 7) - m.high ** (1 / 7))) ** power)


def exponential(n: int, m: Levels) -> Tensor:
    return zero_at_end(torch.linspace(math.log(m.high), math.log(m.low), n).exp())


def kl_optimal(n: int, m: Levels) -> Tensor:
    return torch.linspace(math.atan(m.high), math.atan(m.low), n + 1).tan()


def simple(n: int, m: Levels) -> Tensor:
    return zero_at_end([float(m.sigmas[-1 - int(i * (len(m.sigmas) / n))]) for i in range(n)])


def ddim(n: int, m: Levels) -> Tensor:
    return zero_at_end(m.sigmas[1 :: max(len(m.sigmas) // n, 1)].flip(0))


def beta(n: int, m: Levels) -> Tensor:
    return zero_at_end([m.low + stats.beta.ppf(t, 0.6, 0.6) * (m.high - m.low) for t in 1 - np.linspace(0, 1, n)])


def beta_by_timestep(n: int, m: Levels) -> Tensor:
    """Each timestep once, so that there can be fewer than n."""
    shares = stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6)
    chosen = list(dict.fromkeys(np.rint(shares * (len(m.sigmas) - 1)).astype(int).tolist()))
    return zero_at_end(m.sigmas[chosen])


def turbo(n: int, m: Levels) -> Tensor:
    t = (torch.arange(1, n + 1).flip(0) * (1000.0 / n) - 1).round().clip(0, 999)
    return zero_at_end(m.at(t))


def between(listed: list[float]) -> Callable[[int, Levels], Tensor]:
    """A list of levels, straight in log-sigma from its lowest up where n is another number."""

    def make(n: int, m: Levels) -> Tensor:
        rising = np.log(listed[::-1])
        return zero_at_end(np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(rising)), rising))[::-1].copy())

    return make


def steps_of(divisors: list[float], last: float) -> Callable[[int, Levels], Tensor]:
    """The same with the model's highest sigma, divided."""
    return lambda n, m: between([m.high, *(m.high / d for d in divisors), last])(n, m)


def sinusoidal(n: int, m: Levels) -> Tensor:
    x = torch.linspace(0, 1, n)
    return ((m.low + (m.high - m.low) * (1 - torch.sin(math.pi / 2 * x))) / m.high) ** 3.5 * m.high


def inverse_cosinusoidal(n: int, m: Levels) -> Tensor:
    x = torch.linspace(0, 1, n)
    return ((m.low + (m.high - m.low) * (torch.cos(math.pi * x) + 1) / 2) / m.high) ** 3.5 * m.high


def react_cosinusoidal(n: int, m: Levels) -> Tensor:
    x = torch.linspace(0, 1, n)
    return ((m.low + (m.high - m.low) * torch.cos(math.pi / 2 * x)) / m.high) ** (2.15 * x) * m.high


def cosine_at(p: float, m: Levels) -> float:
    return m.low + (m.high - m.low) * (1 - math.cos(math.pi * (1 - math.sqrt(p)))) / 2


def cosine(n: int, m: Levels) -> Tensor:
    return zero_at_end([math.sqrt(m.high)] if n == 1 else [cosine_at(i / (n - 1), m) for i in range(n)])


def cosine_exponential(n: int, m: Levels) -> Tensor:
    """Blends from the cosine to an exponential that has hardly fallen; it rises after the second step."""
    if n == 1:
        return zero_at_end([math.sqrt(m.high)])
    shares = [i / (n - 1) for i in range(n)]
    return zero_at_end([(1 - p) * cosine_at(p, m) + p * m.high * 0.9**p for p in shares])


def phi(n: int, m: Levels) -> Tensor:
    golden = (1 + math.sqrt(5)) / 2
    shares = [i / (n - 1) for i in range(n)] if n > 1 else []
    return zero_at_end([m.low + (m.high - m.low) * (1 - p) ** golden**2 for p in shares] or [math.sqrt(m.high)])


def laplace(n: int, m: Levels) -> Tensor:
    x = torch.linspace(0, 1, n)
    levels = (-0.5 * torch.sign(0.5 - x) * torch.log(1 - 2 * (0.5 - x).abs() + 1e-5)).exp()
    return zero_at_end(levels.clamp(m.low, m.high))


AYS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
AYS_XL = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]
GITS = [14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029]
AYS_DIVISORS = [2.257, 3.785, 5.418, 7.749, 10.469, 15.176, 22.415, 36.629, 96.151]
GITS_DIVISORS = [3.165, 5.829, 11.824, 20.819, 36.355, 60.895, 93.685, 140.528, 155.478]

SCHEDULE_TYPES: dict[str, Callable[[int, Levels], Tensor]] = {
    "Uniform": uniform,
    "Karras": karras,
    "Karras Dynamic": karras_dynamic,
    "Exponential": exponential,  # and Polyexponential with its default rho of 1
    "SGM Uniform": lambda n, m: zero_at_end(m.at(timesteps(m, n + 1)[:-1])),
    "Normal": lambda n, m: zero_at_end(m.at(timesteps(m, n))),
    "KL Optimal": kl_optimal,
    "Simple": simple,
    "DDIM": ddim,
    "Beta": beta,
    "Beta by timestep": beta_by_timestep,
    "Turbo": turbo,
    "Align Your Steps": between(AYS),
    "Align Your Steps, SDXL": between(AYS_XL),
    "Align Your Steps GITS": between(GITS),
    "Align Your Steps, of the model": steps_of(AYS_DIVISORS, 0.029),
    "Align Your Steps GITS, of the model": steps_of(GITS_DIVISORS, 0.029),
    "Sinusoidal SF": sinusoidal,
    "Invcosinusoidal SF": inverse_cosinusoidal,
    "React Cosinusoidal DynSF": react_cosinusoidal,
    "Cosine": cosine,
    "Cosine-exponential Blend": cosine_exponential,
    "Phi": phi,
    "Laplace": laplace,
}


def discard_next_to_last(make: Callable[[int, Levels], Tensor], n: int, m: Levels) -> Tensor:
    """The hosts' option of that name: of one step more, the last but one is left out."""
    sigmas = make(n + 1, m)
    return torch.cat([sigmas[:-2], sigmas[-1:]])
