"""Attentions that WebUIs run in the place of torch's, with their signatures and the layouts of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attention = Callable[..., Tensor]
"""``(N, heads, L, d)``, as torch's."""


def _kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``(N, heads, L, d)``: one kernel, and none that torch's own function runs."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def _in_8_bits(x: Tensor) -> Tensor:
    step = x.float().abs().amax(dim=(-2, -1), keepdim=True) / 127
    return ((x.float() / step).round() * step).to(x.dtype)


def sageattn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    sm_scale: float | None = None,
    return_lse: bool = False,
    **kwargs: Any,
) -> Tensor:
    """SageAttention's: queries and keys in 8 bits."""
    assert not (is_causal or return_lse or sm_scale or kwargs)
    if tensor_layout == "NHD":
        return sageattn(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return _kernel(_in_8_bits(q), _in_8_bits(k), v)


def memory_efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Any = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: Any = None,
) -> Tensor:
    """xformers': ``(N, L, heads, d)``."""
    assert attn_bias is None and not p and scale is None and op is None
    return _kernel(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """flash-attn's: ``(N, L, heads, d)``."""
    assert not (dropout_p or causal) and softmax_scale is None and window_size == (-1, -1)
    return memory_efficient_attention(q, k, v)


def _of_nhd(attention: Callable[..., Tensor], **more: Any) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(*(x.transpose(1, 2) for x in (q, k, v)), **more).transpose(1, 2)

    return attend


FOREIGN: dict[str, Attention] = {
    "sage": lambda q, k, v: sageattn(q, k, v, tensor_layout="HND"),
    "sage, heads last": _of_nhd(sageattn, tensor_layout="NHD"),
    "xformers": _of_nhd(memory_efficient_attention),
    "flash": _of_nhd(flash_attn_func),
}


def torchs_functions_but(attention: Attention) -> SimpleNamespace:
    """For a module that calls ``functional.scaled_dot_product_attention``: that attention there, and only there."""
    return SimpleNamespace(**{**vars(functional), "scaled_dot_product_attention": attention})
