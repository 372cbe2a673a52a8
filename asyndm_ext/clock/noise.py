"""Noise levels of a discrete-time model: alphas_cumprod, sigma and timestep, elementwise on maps."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.region.grid import distinct


class NoiseTable:
    """Converts between sigma, timestep and alphas_cumprod for maps of any shape (float64, on the CPU).

    Args:
        log_sigmas: ``(T,)`` logarithm of sigma at timestep 0..T-1, rising.
    """

    def __init__(self, log_sigmas: Tensor) -> None:
        self.log_sigmas = log_sigmas.detach().double().cpu()
        self.alphas_cumprod = 1 / (1 + torch.exp(2 * self.log_sigmas))

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor) -> NoiseTable:
        """From the model's cumulative product ``(T,)``; sigma = sqrt((1 - a) / a)."""
        a = alphas_cumprod.detach().double().cpu()
        table = cls(0.5 * torch.log((1 - a) / a))
        table.alphas_cumprod = a
        return table

    def sigma_to_t(self, sigma: Tensor, quantize: bool = False) -> Tensor:
        """Fractional timestep of each sigma > 0, any shape (k-diffusion's ``sigma_to_t``).

        Args:
            quantize: the nearest whole one instead, by the distance of the logarithms; of two equally near the lower.
        """
        sigmas, where = distinct(sigma.double())
        return self._sigma_to_t(sigmas, quantize)[where]

    def _sigma_to_t(self, sigma: Tensor, quantize: bool) -> Tensor:
        log_sigma = sigma.log()
        low = (torch.searchsorted(self.log_sigmas, log_sigma.contiguous(), right=True) - 1).clamp(
            0, len(self.log_sigmas) - 2
        )
        span = self.log_sigmas[low + 1] - self.log_sigmas[low]
        share = ((log_sigma - self.log_sigmas[low]) / span).clamp(0, 1)
        return low + (share > 0.5).double() if quantize else low + share

    def sigma_at(self, percent: float) -> float:
        """Sigma at a share of the timesteps, counted from the noisiest, fraction; straight in log-sigma."""
        t = (1 - percent) * (len(self.log_sigmas) - 1)
        low = min(int(t), len(self.log_sigmas) - 2)
        return float(torch.lerp(self.log_sigmas[low], self.log_sigmas[low + 1], t - low).exp())

    def half_log_snr(self, t: Tensor) -> Tensor:
        """``log(alpha/sigma)`` at fractional timesteps: straight between whole ones in log alpha, as DPM-Solver has it.

        Args:
            t: any shape, float64, 0 to the last timestep.
        """
        log_alpha = 0.5 * self.alphas_cumprod.log()
        low = t.floor().long().clamp(0, len(log_alpha) - 2)
        between = torch.lerp(log_alpha[low], log_alpha[low + 1], t - low)
        return between - 0.5 * torch.log(-torch.expm1(2 * between))

    def timestep_of(self, half_log_snr: Tensor) -> Tensor:
        """The fractional timestep ``(n,)`` with this half-log-SNR, the inverse of :meth:`half_log_snr`."""
        rising = 0.5 * self.alphas_cumprod.log().flip(0)
        log_alpha = -0.5 * torch.nn.functional.softplus(-2 * half_log_snr)
        low = (torch.searchsorted(rising, log_alpha) - 1).clamp(0, len(rising) - 2)
        share = (log_alpha - rising[low]) / (rising[low + 1] - rising[low])
        return len(rising) - 1 - (low + share)

    def alpha_at(self, t: Tensor) -> Tensor:
        """alphas_cumprod at whole timesteps ``t`` (any shape), clamped to the table.

        Raises RuntimeError for NaN, which as a whole number would be some timestep or other.
        """
        if not bool(torch.isfinite(t).all()):
            raise RuntimeError("a pixel's timestep is not finite")
        return self.alphas_cumprod[t.long().clamp(0, len(self.alphas_cumprod) - 1)]
