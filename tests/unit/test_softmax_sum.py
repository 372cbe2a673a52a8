"""The sum of the host's softmax: it is right, the host's answer is untouched, and no kernel is believed unseen."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asyndm_ext.model import softmax_sum
from asyndm_ext.model.softmax_sum import SoftmaxSum, fused_kernel, key_probabilities

HOST = functional.scaled_dot_product_attention
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def parts(dtype: torch.dtype = torch.float32, tokens: int = 19, width: int = 16, strided: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    made = [torch.randn(2, tokens, 3, width, generator=generator).to(dtype).transpose(1, 2) for _ in range(3)]
    return made if strided else [part.contiguous() for part in made]


class Asking:
    """Asks for the sums of every call, or of none."""

    def __init__(self, wants: bool = True) -> None:
        self.wants, self.told, self.missed = wants, list[Tensor](), 0
        self.sums = SoftmaxSum(self.ask, self.miss)

    def ask(self, q: Tensor, k: Tensor) -> Callable[[Tensor], None] | None:
        return self.told.append if self.wants else None

    def miss(self) -> None:
        self.missed += 1


def log_sums(q: Tensor, k: Tensor) -> Tensor:
    return (q.double() @ k.double().transpose(2, 3) / q.shape[-1] ** 0.5).logsumexp(dim=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("tokens", [1, 19, 700])
def test_the_answer_is_the_hosts_and_the_sum_is_softmaxs(dtype: torch.dtype, strided: bool, tokens: int) -> None:
    q, k, v = parts(dtype, tokens, strided=strided)
    expected, asking = HOST(q, k, v), Asking()
    with asking.sums.attached():
        for _ in range(2):
            found = functional.scaled_dot_product_attention(q, k, v)
            assert torch.equal(found, expected) and found.stride() == expected.stride()
    assert (len(asking.told), asking.missed) == (2, 0), "no sums: this torch has no fused attention on the CPU?"
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    for told in asking.told:
        torch.testing.assert_close(told.double(), log_sums(q, k), atol=tolerance, rtol=0)


def test_what_has_been_seen_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs an attention: once a run, not once a step."""
    calls = 0

    def host(*args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return HOST(*args)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", host)
    q, k, v = parts()
    asking, trusted = Asking(), dict[Any, bool]()
    for _ in range(3):
        with SoftmaxSum(asking.ask, asking.miss, trusted).attached():
            functional.scaled_dot_product_attention(q, k, v)
    assert (calls, len(asking.told), list(trusted.values())) == (1, 3, [True])


def test_probabilities_of_some_keys() -> None:
    q, k, _ = parts(tokens=30)
    columns = [4, 0, 29]
    found = key_probabilities(q[1], k[1][:, columns], log_sums(q, k)[1])
    explicit = (q[1].double() @ k[1].double().transpose(1, 2) / 4).softmax(dim=-1).mean(dim=0)[:, columns]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), explicit, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_multiplied_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    q, k, _ = parts(dtype, tokens=30)
    sums = log_sums(q, k)[0]
    explicit = (q[0].double() @ k[0].double().transpose(1, 2) / 4 - sums.unsqueeze(-1)).exp().mean(dim=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = key_probabilities(q[0], k[0], sums)
    torch.testing.assert_close(found.double(), explicit, atol=1e-7, rtol=1e-5)


UNUSUAL: list[dict[str, Any]] = [
    {"attn_mask": torch.ones(19, 19).tril().bool()},
    {"is_causal": True},
    {"scale": 0.3},
    {"attn_mask": torch.zeros(19, 19), "dropout_p": 0.0},
]


@pytest.mark.parametrize("options", UNUSUAL, ids=lambda options: next(iter(options)))
def test_other_attention_is_the_hosts_call(options: dict[str, Any]) -> None:
    q, k, v = parts()
    expected, asking = HOST(q, k, v, **options), Asking()
    with asking.sums.attached():
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v, **options), expected)
    assert (asking.told, asking.missed) == ([], 1)


def test_a_host_that_says_what_is_usual_is_understood() -> None:
    q, k, v = parts()
    asking = Asking()
    with asking.sums.attached():
        functional.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)
        functional.scaled_dot_product_attention(q, k, v, None, 0.0, False)
        functional.scaled_dot_product_attention(query=q, key=k, value=v)
    assert (len(asking.told), asking.missed) == (3, 0)


@pytest.mark.parametrize(
    "odd",
    [
        lambda parts: [part[0] for part in parts],
        lambda parts: [part[..., :12] for part in parts],
        lambda parts: [part.clone().requires_grad_() for part in parts],
        lambda parts: [part.double() for part in parts],
    ],
    ids=["three dimensions", "narrow", "gradients", "double"],
)
def test_where_it_cannot_be_sure_it_lets_be(odd: Callable[[list[Tensor]], list[Tensor]]) -> None:
    """Double precision is fused as well on the CPU: either way the answer is the host's."""
    q, k, v = odd(parts())
    expected, asking = HOST(q, k, v), Asking()
    with asking.sums.attached():
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v), expected)
    assert len(asking.told) + asking.missed == 1


def test_nobody_asks_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_sum, "fused_kernel", lambda *_: pytest.fail("a kernel was looked for"))
    q, k, v = parts()
    asking = Asking(wants=False)
    with asking.sums.attached():
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v), HOST(q, k, v))
    assert (asking.told, asking.missed) == ([], 0)


def _no_kernel(q: Tensor, k: Tensor, v: Tensor) -> None:
    return None


def _other_answer(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return lambda *_: (HOST(q, k, v) * (1 + 1e-6), log_sums(q, k).float())


def _in_base_two(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return lambda *_: (HOST(q, k, v), log_sums(q, k).float() * 1.4427)


def _other_layout(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return lambda *_: (HOST(q, k, v), log_sums(q, k).float().transpose(1, 2))


@pytest.mark.parametrize("kernel", [_no_kernel, _other_answer, _in_base_two, _other_layout])
def test_a_kernel_is_not_believed_unseen(kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = parts()
    monkeypatch.setattr(softmax_sum, "fused_kernel", kernel)
    expected, asking = HOST(q, k, v), Asking()
    with asking.sums.attached():
        for _ in range(2):
            assert torch.equal(functional.scaled_dot_product_attention(q, k, v), expected)
    assert (asking.told, asking.missed) == ([], 2)


def test_the_check_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    q, k, v = parts()
    asking = Asking()
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *args, **_: calls.append(1) or HOST(*args))
    with asking.sums.attached():
        for _ in range(3):
            functional.scaled_dot_product_attention(q, k, v)
    assert (len(calls), len(asking.told)) == (1, 3)


def test_it_is_put_back_also_after_an_error() -> None:
    asking = Asking()
    with pytest.raises(RuntimeError, match="interrupted"), asking.sums.attached():
        assert functional.scaled_dot_product_attention is not HOST
        raise RuntimeError("interrupted")
    assert functional.scaled_dot_product_attention is HOST


def test_an_error_of_the_hosts_is_the_hosts() -> None:
    q, k, v = parts()
    with Asking().sums.attached(), pytest.raises(RuntimeError):
        functional.scaled_dot_product_attention(q, k[..., :8], v)
    assert functional.scaled_dot_product_attention is HOST


def test_what_others_put_there_since_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "scaled_dot_product_attention", HOST)  # put back after the test
    asking, (q, k, v) = Asking(), parts()
    with asking.sums.attached():
        below = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = partial(below)
        theirs = functional.scaled_dot_product_attention
    assert functional.scaled_dot_product_attention is theirs
    assert torch.equal(theirs(q, k, v), HOST(q, k, v))
    assert not asking.told, "it went on asking after it was detached"


def test_other_threads_are_left_alone() -> None:
    """The live preview decodes in a thread of its own."""
    asking, (q, k, v), found = Asking(), parts(), []
    with asking.sums.attached():
        thread = threading.Thread(target=lambda: found.append(functional.scaled_dot_product_attention(q, k, v)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], HOST(q, k, v)) and not asking.told and not asking.missed


def test_an_old_torch_without_the_choice_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused_kernel(*parts()) is not None
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    assert fused_kernel(*parts()) is None


@pytest.mark.skipif(not softmax_sum._cudnn_tells(), reason="this torch's cuDNN attention does not tell its sums")
@pytest.mark.parametrize(("off", "believed"), [(0.0, True), (0.1, False)])
@pytest.mark.parametrize("last", [True, False], ids=["(N,heads,L,1)", "(N,heads,L)"])
def test_cudnns_attention_is_asked_for_its_sums(
    off: float, believed: bool, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch prefers it on Hopper; here the CPU's attention stands in for it."""
    asked = []

    def cudnn(q: Tensor, k: Tensor, v: Tensor, bias: None, compute_log_sumexp: bool, *_: Any, **__: Any) -> Any:
        assert bias is None and compute_log_sumexp
        asked.append(q)
        answer, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        nothing = torch.empty(0)
        return answer, (sums[..., None] if last else sums) + off, nothing, nothing, 0, 0, nothing, nothing, nothing

    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: 3)
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("_scaled_dot_product_cudnn_attention", cudnn, "CPU")
        (q, k, v), asking = parts(), Asking()
        with asking.sums.attached():
            for _ in range(2):
                assert torch.equal(functional.scaled_dot_product_attention(q, k, v), HOST(q, k, v))
    finally:
        library._destroy()
    assert (len(asked), len(asking.told), asking.missed) == ((2, 2, 0) if believed else (1, 0, 2))
    for told in asking.told:
        torch.testing.assert_close(told.double(), log_sums(q, k), atol=1e-5, rtol=0)


# -- blocks that overlap


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a failing test leaves in torch is gone after it."""
    monkeypatch.setattr(functional, "scaled_dot_product_attention", HOST)


def attend() -> Tensor:
    return functional.scaled_dot_product_attention(*parts())


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_torch_is_as_it_was_in_whatever_order_they_leave(order: tuple[int, ...]) -> None:
    three, expected = [Asking() for _ in range(3)], attend()
    blocks = [asking.sums.attached() for asking in three]
    for block in blocks:
        block.__enter__()
    for left, number in enumerate(order):
        assert torch.equal(attend(), expected)
        assert sum(len(asking.told) for asking in three) == sum(range(3, 2 - left, -1)), "not all were asked"
        blocks[number].__exit__(None, None, None)
    assert functional.scaled_dot_product_attention is HOST


@pytest.mark.usefixtures("put_back")
def test_an_error_in_between_ends_its_own_block_only() -> None:
    first, second = Asking(), Asking()
    outer = first.sums.attached()
    outer.__enter__()
    with pytest.raises(RuntimeError, match="interrupted"), second.sums.attached():
        outer.__exit__(None, None, None)
        attend()
        raise RuntimeError("interrupted")
    assert (len(first.told), len(second.told)) == (0, 1)
    assert functional.scaled_dot_product_attention is HOST


@pytest.mark.usefixtures("put_back")
def test_somebody_else_in_between_who_leaves_last() -> None:
    """It puts back what it found, which is ours; that is not to stay."""
    first, second, theirs = Asking(), Asking(), []

    def other(*args: Any, **kwargs: Any) -> Tensor:
        theirs.append(1)
        return found(*args, **kwargs)

    with first.sums.attached():
        found = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = other
        later = second.sums.attached()
        later.__enter__()
    expected = HOST(*parts())
    assert torch.equal(attend(), expected)
    assert (len(first.told), len(second.told), len(theirs)) == (0, 1, 1)  # theirs: the look at the kernel
    later.__exit__(None, None, None)
    assert functional.scaled_dot_product_attention is other
    functional.scaled_dot_product_attention = found
    assert torch.equal(attend(), expected)
    assert functional.scaled_dot_product_attention is HOST


@pytest.mark.usefixtures("put_back")
def test_what_somebody_else_put_back_is_no_reason_to_go_in_circles() -> None:
    first, second, expected = Asking(), Asking(), attend()
    with first.sums.attached():
        found = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = partial(found)
    functional.scaled_dot_product_attention = found
    with second.sums.attached():
        assert torch.equal(attend(), expected)
    assert (len(first.told), len(second.told)) == (0, 1)
    assert functional.scaled_dot_product_attention is HOST
