"""What the objects get of an attention, from the sums that a fused kernel tells: for one layer as for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from asyndm_ext.model import object_sums
from asyndm_ext.model.cross_probabilities import memory_for
from asyndm_ext.model.object_sums import ObjectKeys, ObjectSums
from asyndm_ext.model.softmax_sum import fused_kernel

ROWS, HEADS, TEXT, PIXELS, WIDTH, BEHIND = 3, 2, 7, 12, 16, 4
IMAGE = slice(TEXT, TEXT + PIXELS)
PLENTY = 2**30

pytestmark = pytest.mark.skipif(
    fused_kernel(*[torch.randn(1, 1, 4, 8)] * 3) is None, reason="this torch has no attention that tells its sums"
)


def layer(seed: int, tokens: int = TEXT + PIXELS + BEHIND, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(ROWS, HEADS, tokens, WIDTH, generator=draw).to(dtype) for _ in range(2))  # type: ignore[return-value]


OBJECTS = [[[2], [5, 6], []], [[1], [], [3, 4, 0]]]
"""Of two rows, three objects each: their tokens."""


def wanted(rows: slice | Tensor) -> ObjectKeys:
    """Of as many rows, the first ones of :data:`OBJECTS`."""
    own = OBJECTS[: 1 if rows == slice(1, 2) else 2]
    columns = [sorted({one for each in row for one in each}) for row in own]
    most = max(map(len, columns))
    share = torch.zeros(len(own), 3, most)
    for i, row in enumerate(own):
        for number, tokens in enumerate(row):
            for token in tokens:
                share[i, number, columns[i].index(token)] += 1 / len(tokens)
    filled = torch.tensor([[*each, *[0] * (most - len(each))] for each in columns])
    return ObjectKeys(rows, filled, share, TEXT)


def explicit(layers: list[tuple[Tensor, Tensor]], rows: slice | Tensor) -> Tensor:
    """Sum over layers of the mean over heads and an object's tokens of the softmax, float64."""
    found: Any = 0
    for q, k in layers:
        logits = q.double() @ k.double().transpose(2, 3) / WIDTH**0.5
        of_rows = logits.softmax(dim=-1)[rows][:, :, IMAGE].mean(dim=1)
        found = found + torch.stack(
            [
                torch.stack([one[:, own].mean(dim=1) if own else torch.zeros(PIXELS).double() for own in objects])
                for one, objects in zip(of_rows, OBJECTS, strict=False)
            ]
        )
    return found


def taken(layers: list[tuple[Tensor, Tensor]], rows: slice | Tensor, memory: int, image: slice = IMAGE) -> Tensor:
    sums, what = ObjectSums(memory, {}), wanted(rows)
    for q, k in layers:
        log_sums = (q.double() @ k.double().transpose(2, 3) / WIDTH**0.5).logsumexp(dim=-1).float()
        assert sums.take(q, k, log_sums, what, image)
    assert sums
    found = sums.found()
    assert found is not None and not sums and sums.found() is None
    return found


ROWS_READ = {"one": slice(1, 2), "two": slice(1, 3), "not in a row": torch.tensor([0, 2])}


@pytest.mark.parametrize("memory", [0, PLENTY])
@pytest.mark.parametrize("number", [1, 2, 5, 30])
@pytest.mark.parametrize("rows", ROWS_READ)
def test_they_are_the_softmax(rows: str, number: int, memory: int) -> None:
    layers, which = [layer(seed) for seed in range(number)], ROWS_READ[rows]
    found, expected = taken(layers, which, memory), explicit(layers, which)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_in_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    layers = [layer(seed, dtype=dtype) for seed in range(4)]
    found, expected = taken(layers, slice(1, 3), PLENTY), explicit(layers, slice(1, 3))
    assert float((found - expected).abs().max() / expected.max()) < tolerance


def test_layers_whose_picture_begins_elsewhere_are_looked_at_apart() -> None:
    layers, there, found = [layer(seed) for seed in range(3)], slice(TEXT + 1, TEXT + 1 + PIXELS), []
    for images in ((IMAGE, IMAGE, IMAGE), (there, there, there), (IMAGE, IMAGE, there)):
        sums, what = ObjectSums(PLENTY, {}), wanted(slice(1, 3))
        for (q, k), image in zip(layers, images, strict=True):
            log_sums = (q @ k.transpose(2, 3) / WIDTH**0.5).logsumexp(dim=-1)
            assert sums.take(q, k, log_sums, what, image)
        found.append(sums.found())
    assert float((found[0] - found[1]).abs().max()) > 0.01
    last = layers[2:]
    expected = found[0] - explicit(last, slice(1, 3)) + taken(last, slice(1, 3), 0, there)
    torch.testing.assert_close(found[2].double(), expected, rtol=1e-4, atol=1e-6)


def test_layers_of_another_size_are_looked_at_apart() -> None:
    layers = [layer(0), layer(1), layer(2, tokens=TEXT + PIXELS), layer(3, tokens=TEXT + PIXELS), layer(4)]
    expected = explicit(layers, slice(1, 3))
    torch.testing.assert_close(taken(layers, slice(1, 3), PLENTY).double(), expected, rtol=1e-5, atol=1e-7)


def asked(monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Any]) -> list[int]:
    """The kernel in the place of the real one; for how many rows it was looked for."""
    sizes: list[int] = []

    def find(q: Tensor, k: Tensor, v: Tensor) -> Any:
        sizes.append(len(q))
        return kernel(fused_kernel(q, k, v), q)

    monkeypatch.setattr(object_sums, "fused_kernel", find)
    return sizes


def test_many_layers_are_one_kernel_once_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = asked(monkeypatch, lambda real, q: real)
    taken([layer(seed) for seed in range(10)], slice(1, 3), PLENTY)
    assert sizes == [2, 18]
    sizes.clear()
    q, k = layer(0)
    taken([layer(seed) for seed in range(10)], slice(1, 3), 3 * (q.nbytes + k.nbytes))
    assert sizes == [2, 6, 6, 6], "as many as there is memory for"


def test_no_kernel_and_one_that_tells_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    (q, k), what = layer(0), wanted(slice(1, 3))
    log_sums = torch.zeros(ROWS, HEADS, q.shape[2])
    for kernel in (
        lambda real, q: None,
        lambda real, q: lambda *parts: (real(*parts)[0], real(*parts)[1] + 0.1),
    ):
        sizes, sums = asked(monkeypatch, kernel), ObjectSums(PLENTY, {})
        for _ in range(2):
            assert not sums.take(q, k, log_sums, what, IMAGE) and not sums
        assert len(sizes) == 1, "looked at once only"


def test_more_objects_than_a_head_is_wide() -> None:
    (q, k), objects = layer(0), WIDTH + 1
    what = ObjectKeys(slice(1, 2), torch.zeros(1, 1, dtype=torch.long), torch.ones(1, objects, 1), TEXT)
    assert not ObjectSums(PLENTY, {}).take(q, k, torch.zeros(ROWS, HEADS, q.shape[2]), what, IMAGE)


def test_one_by_one_where_the_kernel_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer(seed) for seed in range(5)]
    sizes = asked(monkeypatch, lambda real, q: real if len(q) == 2 else None)
    torch.testing.assert_close(
        taken(layers, slice(1, 3), PLENTY).double(), explicit(layers, slice(1, 3)), rtol=1e-5, atol=1e-7
    )
    assert sizes == [2, 8, 2, 2, 2, 2]


def test_what_is_forgotten_is_gone() -> None:
    sums, what = ObjectSums(PLENTY, {}), wanted(slice(1, 3))
    q, k = layer(0)
    for _ in range(3):
        assert sums.take(q, k, torch.zeros(ROWS, HEADS, q.shape[2]), what, IMAGE)
    sums.forget()
    assert not sums and sums.found() is None


def test_the_memory_is_a_share_of_the_weights() -> None:
    """But some megabytes whatever they take, and not a gigabyte for the largest."""
    with torch.device("meta"):
        sizes = [memory_for(torch.nn.Linear(1024, outputs, dtype=torch.float16)) for outputs in (1, 2**20, 2**24)]
    assert sizes[0] == 2**24 and sizes[1] == pytest.approx(0.01 * 2**31, rel=0.01) and sizes[2] == 2**27
