"""The model call with a sigma map, through a host that takes one sigma per image.

The host's denoiser does its own scaling for a scalar ``s``. Feeding it the latent as it would look at level
``s`` and taking the network's answer out of what it returns gives the network's output for the true,
per-pixel level ``m``; the host's code stays in use (inpainting conditioning, precision, wrappers).

Shapes throughout: ``x`` ``(N,C,H,W)``, ``s`` scalar per row ``(N,1,1,1)``, ``m`` ``(N,1,H,W)``. sigma in the
variance-exploding convention of k-diffusion, sigma_data = 1.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoise = Callable[[Tensor], Tensor]
"""The host's denoiser at its scalar level: x -> denoised."""


def eps_denoised(denoise: Denoise, x: Tensor, s: Tensor, m: Tensor) -> Tensor:
    """Denoised ``x - m*eps`` of an eps-prediction model."""
    x_in = x * ((s**2 + 1) / (m**2 + 1)).sqrt()
    eps = (x_in - denoise(x_in)) / s
    return x - m * eps


def v_denoised(denoise: Denoise, x: Tensor, s: Tensor, m: Tensor) -> Tensor:
    """Denoised ``x/(m^2+1) - v*m/sqrt(m^2+1)`` of a v-prediction model (Karras et al., c_skip and c_out)."""
    x_in = x * ((s**2 + 1) / (m**2 + 1)).sqrt()
    v = (x_in / (s**2 + 1) - denoise(x_in)) * (s**2 + 1).sqrt() / s
    return x / (m**2 + 1) - v * m / (m**2 + 1).sqrt()


def flow_denoised(denoise: Denoise, x: Tensor, s: Tensor, m: Tensor) -> Tensor:
    """Denoised ``x - m*v`` of a rectified flow (SD3, Flux; Liu et al. 2022): ``x = (1-m)*x0 + m*noise``, m in (0, 1].

    The network takes the latent as it is, so nothing is rescaled on the way in.
    """
    v = (x - denoise(x)) / s
    return x - m * v


def lcm_scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """``(c_skip, c_out)`` of a latent consistency model at timesteps ``t`` (Luo et al. 2023; sigma_data 1/2)."""
    scaled = 10 * t
    return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()


def lcm_denoised(denoise: Denoise, x: Tensor, s: Tensor, m: Tensor, t_s: Tensor, t_m: Tensor) -> Tensor:
    """Denoised ``c_out*(x - m*eps) + c_skip*x`` of a latent consistency model.

    Args:
        denoise, x, s, m: as for the others.
        t_s, t_m: the timesteps that the host takes for ``s`` and ``m``, of their shapes.
    """
    x_in = x * ((s**2 + 1) / (m**2 + 1)).sqrt()
    c_skip, c_out = lcm_scalings(t_s)
    eps = (x_in - (denoise(x_in) - c_skip * x_in) / c_out) / s
    c_skip, c_out = lcm_scalings(t_m)
    return c_out * (x - m * eps) + c_skip * x


def v_to_eps(eps_at_nominal: Tensor, x: Tensor, alpha_s: Tensor, alpha_m: Tensor) -> Tensor:
    """eps of a v-prediction model in VP space at per-pixel level ``alpha_m``.

    A host that turned v into eps with its scalar ``alpha_s`` computed ``sqrt(alpha_s)*v + sqrt(1-alpha_s)*x``;
    v is taken out of that and eps computed again with the map.

    Args:
        eps_at_nominal: the host's answer ``(N,C,H,W)``.
        x: latent in VP space ``(N,C,H,W)``.
        alpha_s, alpha_m: alphas_cumprod, ``(N,1,1,1)`` and ``(N,1,H,W)``.
    """
    v = (eps_at_nominal - (1 - alpha_s).sqrt() * x) / alpha_s.sqrt()
    return alpha_m.sqrt() * v + (1 - alpha_m).sqrt() * x
