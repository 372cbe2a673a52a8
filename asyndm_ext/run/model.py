"""What a run calls a network by."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


class Model(Protocol):
    """The guided model of a host, level maps included."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        """Denoised (noise-level samplers) or eps (timestep samplers) ``(B,C,H,W)``.

        Args:
            x: latent ``(B,C,H,W)``.
            nominal: the host's own level of this step (sigma or timestep).
            level: the level of each pixel ``(B,1,H,W)``, float64 on the CPU.
        """

    def attention(self) -> Tensor | None:
        """The objects' maps ``(B,n,h,w)`` of the last call, or None."""


@runtime_checkable
class TellsUncond(Protocol):
    """A model that also tells what it answers without the prompt."""

    last_uncond: Tensor | None
    """Of the last call, ``(B,C,H,W)``, as that call's own answer; None before the first."""


@runtime_checkable
class TellsChange(Protocol):
    """A model that also tells what others have done to the level that it was called with."""

    changed: Tensor | None
    """The factor of each image in the last call, ``(B,1,1,1)`` float64 on the CPU; None where nobody has."""
