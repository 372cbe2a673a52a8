"""Latents with a dimension of time: pictures of video models, ``(B,C,1,H,W)``.

Solvers, clocks and maps know pictures only. So what goes from them to the host gets the dimension, and what comes back
loses it; a latent of several frames is a video, whose objects move from frame to frame, and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from asyndm_ext.hosts.webui.errors import NotApplied


class Frames:
    """How the latents of a pass look to the host.

    Args:
        x: its starting latent ``(B,C,H,W)`` or ``(B,C,1,H,W)``.

    Raises:
        NotApplied: it is no latent of pictures.
    """

    def __init__(self, x: Tensor) -> None:
        if x.ndim == 5 and x.shape[2] > 1:
            raise NotApplied("the model draws a video, and objects move from frame to frame")
        if x.ndim not in (4, 5):
            raise NotApplied(f"the model's latent has {x.ndim} dimensions, and so is none of a picture")
        self._one = x.ndim == 5

    def flat(self, x: Tensor) -> Tensor:
        """The host's ``(B,C,1,H,W)`` as ``(B,C,H,W)``."""
        return x.squeeze(2) if self._one else x

    def deep(self, x: Tensor) -> Tensor:
        """The other way round."""
        return x.unsqueeze(2) if self._one else x

    def model(self, model: Any) -> Any:
        """The host's guided model for a solver (:class:`asyndm_ext.run.Model`)."""
        return _FlatModel(model, self) if self._one else model

    def callback(self, callback: Callable[[dict[str, Any]], None] | None) -> Callable[[dict[str, Any]], None] | None:
        """The host's callback for a solver."""
        if callback is None or not self._one:
            return callback
        return lambda step: callback({**step, "x": self.deep(step["x"]), "denoised": self.deep(step["denoised"])})

    def randn_like(self, randn_like: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The host's noise for a solver."""
        return (lambda x: self.flat(randn_like(self.deep(x)))) if self._one else randn_like

    def noise_sampler(
        self, noise_sampler: Callable[[Tensor, Tensor], Tensor] | None
    ) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The host's noise of an interval for a solver."""
        if noise_sampler is None or not self._one:
            return noise_sampler
        return lambda sigma, sigma_next: self.flat(noise_sampler(sigma, sigma_next))


class _FlatModel:
    def __init__(self, model: Any, frames: Frames) -> None:
        self._model, self._frames = model, frames

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        return self._frames.flat(self._model(self._frames.deep(x), nominal, level))

    def attention(self) -> Tensor | None:
        return self._model.attention()

    @property
    def last_uncond(self) -> Tensor | None:
        found = self._model.last_uncond
        return None if found is None else self._frames.flat(found)
