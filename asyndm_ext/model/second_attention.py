"""A second attention beside the host's, where the host's own does not tell the sum of its softmax.

The fused kernel can be made to tell a probability without the matrix of all: attention over values that are 1 at an
object's tokens and 0 elsewhere.

It takes 0.7 to 0.9 of the time of the host's own for such a row, in no more memory (one CPU thread,
float32, 24 heads, 1024 and 4096 image tokens); with the host's sum it is 0.02 (1024 tokens). Log-sum-exp in chunks took
1.0 to 2.9 and many times the memory. Values narrower than the queries leave the fused kernels (2.3 to 3.8, and the
whole matrix of probabilities).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asyndm_ext.model.cross_probabilities import VALUE, attend


def indicator(columns: Sequence[Sequence[int]], keys: int, width: int) -> Tensor:
    """Values ``(keys, width)`` that make attention sum the probabilities of an object's tokens.

    Args:
        columns: for each object the keys that are its tokens.
        keys: number of keys. width: of a value, at least the number of objects; the rest is 0.
    """
    values = torch.zeros(keys, width)
    for number, own in enumerate(columns):
        values[list(own), number] = VALUE
    return values


def joint_probabilities(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """Softmax over all keys, then per object the sum over its tokens and the mean over heads.

    Args:
        q: ``(N, heads, L, d)``, the queries of interest. k: ``(N, heads, S, d)``, all keys.
        values: ``(N, S, width)``, an :func:`indicator` for each row, of q's dtype and device. As wide as q they suit
            the flash kernels, which want it so.

    Returns:
        ``(N, width, L)`` float32. Computed in the dtype of q (the fast kernels of a GPU are for its own); on the
        CPU, give it float32.
    """
    every_head = values.unsqueeze(1).expand(-1, k.shape[1], -1, -1)
    found = attend(q, k, every_head)
    return (found.float().mean(dim=1) / VALUE).transpose(1, 2)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) of pairs of channels.

    Args:
        x: ``(N, heads, L, d)``.
        rotation: matrices ``(N or 1, 1, L, d/2, 2, 2)``.
    """
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    turned = rotation[..., 0] * pairs[..., 0] + rotation[..., 1] * pairs[..., 1]
    return turned.reshape(x.shape).to(x.dtype)
