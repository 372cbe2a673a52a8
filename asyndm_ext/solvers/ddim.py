"""DDIM and what is built on its step, in the model's own variance-preserving space."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.run import Run
from asyndm_ext.solvers.adams import adams_bashforth
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver


def clean(x: Tensor, eps: Tensor, alpha: Tensor) -> Tensor:
    """The picture that ``x`` would be without the noise ``eps``."""
    return (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()


def renoise(alpha: Tensor, alpha_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """How much of the old noise and of fresh noise ``(direction, sigma)`` is in the next latent."""
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    sigma = eta * variance.clamp_min(0).sqrt()
    return (1 - alpha_next - sigma**2).clamp_min(0).sqrt(), sigma


@torch.no_grad()
def sample_ddim(run: Run, x: Tensor, eta: float = 0.0) -> Tensor:
    """Song et al. (2020), Eq. 12 and 16, per pixel; a pixel whose timestep stays is left exactly as it is."""
    for i in run.steps():
        alpha = run.alpha
        eps = run.model(x)
        run.move()
        alpha_next = run.alpha
        x0 = clean(x, eps, alpha)
        direction, sigma = renoise(alpha, alpha_next, eta)
        # Drawn also for eta 0, as the WebUI does, so that seeds match.
        x = alpha_next.sqrt() * x0 + direction * eps + sigma * run.randn_like(x)
        run.report(i, x, x0)
    return x


@torch.no_grad()
def sample_ddim_cfgpp(run: Run, x: Tensor, eta: float = 0.0) -> Tensor:
    """CFG++ (Chung et al. 2024): DDIM that noises the guided picture again with the unguided noise.

    The two differ by the guidance, so a pixel whose timestep stays does not stay itself: each step pulls it
    towards the prompt. Every pixel gets as many pulls as the host's have.
    """
    for i in run.steps():
        alpha = run.alpha
        eps = run.model(x)
        unguided = run.uncond()
        run.move()
        alpha_next = run.alpha
        x0 = clean(x, eps, alpha)
        direction, sigma = renoise(alpha, alpha_next, eta)
        x = alpha_next.sqrt() * x0 + direction * unguided + sigma * run.randn_like(x)
        run.report(i, x, x0)
    return x


def steps_done(run: Run) -> Tensor:
    """How many of the host's steps each pixel is on its way, fractions, ``(B,1,H,W)`` float64 on the CPU."""
    return (1 - run.schedule.clock.height) * run.schedule.base.updates


@torch.no_grad()
def sample_plms(run: Run, x: Tensor) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022): DDIM's step with an eps extrapolated to the middle of the step.

    Liu's coefficients are those of Adams-Bashforth for equal steps. A pixel's steps are not equal, so its
    coefficients follow from where it was on the host's schedule, counted in the host's steps: on the host's own
    schedule these are whole numbers and the coefficients are Liu's, whatever the rounding of the timesteps.
    """
    history: list[tuple[Tensor, Tensor]] = []  # (position, eps), newest first
    for i in run.steps():
        alpha, position = run.alpha, steps_done(run)
        eps = run.model(x)
        history = [(position, eps), *history[:3]]
        run.move()
        alpha_next = run.alpha
        if len(history) == 1:
            x_euler = alpha_next.sqrt() * clean(x, eps, alpha) + (1 - alpha_next).sqrt() * eps
            eps_mean = (eps + run.model(x_euler)) / 2
        else:
            weights = run.maps.all_on_device(*adams_bashforth([position for position, _ in history], steps_done(run)))
            eps_mean = sum((w * e for w, (_, e) in zip(weights, history, strict=True)), 0 * eps)
        x0 = clean(x, eps_mean, alpha)
        x = alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * eps_mean
        run.report(i, x, x0)
    return x


REGISTERED = (
    Row(Solver(sample_ddim, "timestep", ("eta",)), labels=("DDIM",), functions=("ddim",)),
    # A CFG scale of 12.5 is the whole guidance of CFG++.
    Row(
        Solver(sample_ddim_cfgpp, "timestep", ("eta",), guidance=1 / 12.5, uncond=True),
        labels=("DDIM CFG++",),
        functions=("ddim_cfgpp",),
    ),
    Row(Solver(sample_plms, "timestep"), labels=("PLMS",), functions=("plms",)),
)
