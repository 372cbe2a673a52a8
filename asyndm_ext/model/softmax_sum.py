"""The host's attention, asked for the sum of its softmax as well.

torch's fused attentions work that sum out anyway, as a logarithm per query (Dao et al. 2022), and return it beside
the answer where they are called by their own names. With it the probability of any single key is
``exp(q . k * scale - log_sum)``: exact, without the other keys. So while somebody wants to know, the calls of
``torch.nn.functional.scaled_dot_product_attention`` that go to such a kernel are made by that kernel's name.

That is believed only after it has been seen: the first answer has to equal the host's own to the last bit, and the
sum that of an explicit softmax. Otherwise, and for everything else than plain attention, the host's function is called
as it would have been.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from asyndm_ext.machine.compiling import is_compiling
from asyndm_ext.model.cross_probabilities import without_autocast

# What torch._fused_sdp_choice answers.
_FLASH, _EFFICIENT, _CUDNN = 1, 2, 3
_TOLERANCE = {torch.float32: 1e-4}
_HALF_TOLERANCE = 2e-3
_PROBES = 4

Trusted = dict[tuple[Any, ...], bool]
"""Kernel, device and dtype -> whether it has been seen to be right."""
Ask = Callable[[Tensor, Tensor], "Callable[[Tensor], None] | None"]
"""Queries and keys ``(N,heads,L,d)`` of a call -> what takes its log-sums ``(N,heads,L)``, or None to let it be."""


class SoftmaxSum:
    """Is asked in front of torch's attention while :meth:`attached`, in the thread that attached it.

    Args:
        ask: called with every attention's queries and keys.
        missed: called where the log-sums that were asked for are not to be had.
        trusted: what is known of the kernels already; added to. Looking costs an attention.
    """

    def __init__(self, ask: Ask, missed: Callable[[], None], trusted: Trusted | None = None) -> None:
        self._ask, self._missed = ask, missed
        self._thread: int | None = None
        self._trusted: Trusted = {} if trusted is None else trusted

    @contextmanager
    def attached(self) -> Iterator[None]:
        """torch's function is exchanged inside this block only, and put back unless others have exchanged it since.

        Blocks may overlap, and be left in any order.
        """
        self._thread = threading.get_ident()
        front = _front()
        front.sums.append(self)
        try:
            yield
        finally:
            self._thread = None
            front.sums.remove(self)
            front.leave()

    def asked(self, query: Tensor, key: Tensor) -> Callable[[Tensor], None] | None:
        """What takes the log-sums of this call, or None."""
        return self._ask(query, key) if self._thread == threading.get_ident() else None

    def missed(self) -> None:
        """The log-sums that it asked for are not to be had."""
        self._missed()

    def fused(
        self,
        host: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> tuple[Tensor, Tensor] | None:
        """The answer of the host's attention and the log-sums ``(N,heads,L)``, or None."""
        if attn_mask is not None or dropout_p or is_causal or scale is not None or enable_gqa:
            return None
        if q.requires_grad or q.ndim != 4 or q.shape[-1] % 8:
            return None
        kernel = fused_kernel(q, k, v)
        sort = (kernel, q.device, q.dtype)
        if kernel is None or not self._trusted.get(sort, True):
            return None
        answer, log_sums = kernel(q, k, v)
        if sort not in self._trusted:
            self._trusted[sort] = _same(answer, host(q, k, v)) and right(log_sums, q, k)
        return (answer, log_sums) if self._trusted[sort] else None


class _Front:
    """What stands in the place of torch's attention, for all that overlap: one in front of the other could only be
    taken away in the reverse order.

    Attributes:
        host: what was there before.
        sums: who is to be asked.
    """

    def __init__(self, host: Callable[..., Tensor]) -> None:
        self.host = host
        self.sums: list[SoftmaxSum] = []
        # torch asks the functions of its module for their names when it compiles.
        self.__name__ = getattr(host, "__name__", "scaled_dot_product_attention")

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if is_compiling():  # which kernel it will be is not known
            return self.host(query, key, value, *args, **kwargs)
        self.leave()
        asking = [(one, tell) for one in self.sums if (tell := one.asked(query, key)) is not None]
        if not asking:
            return self.host(query, key, value, *args, **kwargs)
        found = asking[0][0].fused(self.host, query, key, value, *args, **kwargs)
        if found is None:
            for one, _ in asking:
                one.missed()
            return self.host(query, key, value, *args, **kwargs)
        for _, tell in asking:
            tell(found[1])
        return found[0]

    def leave(self) -> None:
        """Put back what was there before, once nobody is to be asked; not over the head of whoever came since.

        They may put this one back when they leave, as that is what they found: then it goes with the next call.
        """
        if not self.sums and functional.scaled_dot_product_attention is self:
            functional.scaled_dot_product_attention = self.host


def _front() -> _Front:
    """The one that stands in the place of torch's attention; put there if there is none."""
    there: Any = functional.scaled_dot_product_attention
    if not isinstance(there, _Front):
        there = functional.scaled_dot_product_attention = _Front(there)
    return there


Kernel = Callable[[Tensor, Tensor, Tensor], "tuple[Tensor, Tensor]"]


def fused_kernel(q: Tensor, k: Tensor, v: Tensor) -> Kernel | None:
    """The kernel that torch would choose for these, if it tells its log-sums. Torch versions differ in their names."""
    choice = getattr(torch, "_fused_sdp_choice", lambda *_: None)(q, k, v)
    if choice == _FLASH:
        return _flash_of_cpu if q.device.type == "cpu" and _FLASH_OF_CPU is not None else _flash
    if choice == _EFFICIENT and q.device.type == "cuda":
        return _efficient
    if choice == _CUDNN and _cudnn_tells():
        return _cudnn
    return None


@cache
def _cudnn_tells() -> bool:
    """Whether cuDNN's attention, which torch prefers on Hopper, can be asked for the sums: not in older versions."""
    found = getattr(torch.ops.aten, "_scaled_dot_product_cudnn_attention", None)
    return found is not None and "bool compute_log_sumexp" in str(found.default._schema)


_FLASH_OF_CPU: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def _flash_of_cpu(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _FLASH_OF_CPU(q, k, v)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]


def _efficient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    answer, log_sums, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    return answer, log_sums[..., : q.shape[2]]  # padded to a multiple of 32


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    answer, log_sums, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    return answer, log_sums.flatten(2)  # (N,heads,L,1), in other versions without the 1


def _same(answer: Tensor, expected: Tensor) -> bool:
    return answer.dtype == expected.dtype and answer.stride() == expected.stride() and torch.equal(answer, expected)


def right(log_sums: Tensor, q: Tensor, k: Tensor) -> bool:
    """Whether they are what explicit softmax sums to, at some of the queries."""
    if log_sums.shape != q.shape[:3]:
        return False
    differences = []
    for place in torch.linspace(0, q.shape[2] - 1, _PROBES).round().int().tolist():
        # No matrix product: a GPU may make those in fewer bits.
        logits = (q[:, :, place : place + 1].float() * k.float()).sum(dim=-1) * q.shape[-1] ** -0.5
        differences.append((logits.logsumexp(dim=-1) - log_sums[:, :, place]).abs().max())
    return float(torch.stack(differences).max()) < _TOLERANCE.get(q.dtype, _HALF_TOLERANCE)


def key_probabilities(q: Tensor, k: Tensor, log_sums: Tensor) -> Tensor:
    """Probabilities of some keys, the mean over heads: ``(..., L, m)`` float32.

    Args:
        q: ``(..., heads, L, d)``. k: ``(..., heads, m, d)``, those keys only.
        log_sums: ``(..., heads, L)``, over all keys.
    """
    scale, sums = q.shape[-1] ** -0.5, log_sums.float().unsqueeze(-1)
    one_batch = (x.flatten(0, -3) for x in (sums, q.float(), k.float().transpose(-1, -2)))
    with without_autocast(q.device):
        found = torch.baddbmm(*one_batch, beta=-1, alpha=scale).exp_()
    return found.view(*q.shape[:-1], -1).mean(dim=-3)
