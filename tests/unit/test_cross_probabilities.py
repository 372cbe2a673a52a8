"""Several layers' cross-attention looked at together, as a GPU is told it: the same maps as one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.small import SIDE, SMALL
from torch import Tensor

from asyndm_ext.bench import unet
from asyndm_ext.bench.cases import CASES
from asyndm_ext.bench.guided import PixelModel
from asyndm_ext.bench.subjects import random_subject
from asyndm_ext.machine.costs import as_on_a_gpu, works_slowly
from asyndm_ext.model import cross_probabilities
from asyndm_ext.model.cross_probabilities import LeftAlone, fused_probabilities

CPU = torch.device("cpu")
CALLS = 3


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, case in SMALL.items():
        monkeypatch.setitem(CASES, name, case)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """For how many rows each attention to the objects was."""
    rows: list[int] = []

    def seen(q: Tensor, *args: Any) -> Tensor:
        rows.append(len(q))
        return fused_probabilities(q, *args)

    monkeypatch.setattr(cross_probabilities, "fused_probabilities", seen)
    with as_on_a_gpu():
        yield rows


def maps(name: str, calls: int = CALLS, images: int = 2) -> list[Tensor]:
    """Of some model calls, one after the other."""
    subject = random_subject(name, images, False, SIDE, CPU, torch.float32)
    columns = [[[2], [5, 6]], [[3, 1], [4]]][:images]  # the images' words stand in other places
    model = PixelModel(subject.host, subject.network, columns)
    found = []
    with torch.no_grad(), model.attached():
        for step in range(8, 8 + calls):
            nominal = float(subject.sigmas[step])
            model(subject.x, nominal, torch.full(subject.shape, nominal, dtype=torch.float64))
            made = model.attention()
            assert made is not None
            found.append(made.clone())
    return found


def alike(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def layers(name: str, kernels: list[int]) -> int:
    """How many attentions of the network are read: one by one in a first call."""
    maps(name, calls=1)
    assert set(kernels) == {2}
    number = len(kernels)
    kernels.clear()
    return number


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_many_layers_are_one_kernel_from_the_second_call_on(name: str, kernels: list[int]) -> None:
    number = layers(name, kernels)
    found = maps(name)
    assert kernels == [2] * number + [2 * number] * (CALLS - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_probabilities, "_MOST", 0)
        kernels.clear()
        alike(maps(name), found)
        assert kernels == [2] * number * CALLS, "there is no memory for several"


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_they_are_the_explicit_softmax(name: str) -> None:
    assert works_slowly(CPU)
    expected = maps(name)
    with as_on_a_gpu():
        assert not works_slowly(CPU)
        alike(maps(name), expected)
    assert works_slowly(CPU)


@pytest.mark.parametrize("part", ["q", "k"])
def test_an_attention_that_works_in_their_place(part: str, kernels: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then each layer is read when it has made them."""
    number, expected = layers("sdxl", kernels), maps("sdxl")
    kernels.clear()

    def spoils(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        answer = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        {"q": q, "k": k}[part].mul_(2)
        return answer

    class Functional:
        scaled_dot_product_attention = staticmethod(spoils)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch.nn.functional, name)

    monkeypatch.setattr(unet, "functional", Functional())
    alike(maps("sdxl"), expected)
    assert kernels == [2] * number * CALLS


def test_it_is_looked_at_once() -> None:
    left, (q, k) = LeftAlone(), torch.randn(2, 3)
    left.note(q, k)
    left.note(torch.ones(1))
    assert left.seen is None
    left.look()
    assert left.seen is True
    left.note(q)
    q.add_(1)
    left.look()
    assert left.seen is True
