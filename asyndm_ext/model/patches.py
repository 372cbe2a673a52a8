"""Diffusion transformers see a patch of latent pixels, mostly 2x2, as one token: maps on the grid of tokens.

A token has one timestep. Steered by attention the strength map is constant within a patch from the start (the
attention lives on the token grid), and a clock that starts alike and is moved alike stays alike, so every
pixel's level is its token's. A map from elsewhere, a painted mask say, has to pass through
:func:`patch_constant` before it moves the clock; otherwise the solver would step pixels to levels that the network
was not told of.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_ext.region.grid import enlarge

PATCH = 2
"""Side of a token in latent pixels, of SD3, SD3.5, Flux, Chroma and most others."""


def patch_grid(height: int, width: int, patch: int = PATCH) -> tuple[int, int]:
    """Tokens of a latent ``(H, W)``, row by row; a last incomplete row or column is padded to a patch of its own.

    Args:
        patch: side of a token in latent pixels.
    """
    return -(-height // patch), -(-width // patch)


def patch_constant(strength: Tensor, patch: int = PATCH) -> Tensor:
    """The strength map with every patch at its mean, ``(B,1,H,W)``, any H and W; float64.

    The mean of those pixels that exist: a patch half inside a mask lags half as far.

    Args:
        patch: side of a token in latent pixels.
    """
    cells = torch.nn.functional.avg_pool2d(strength.double(), patch, ceil_mode=True, count_include_pad=False)
    return enlarge(cells, (strength.shape[-2], strength.shape[-1]))
