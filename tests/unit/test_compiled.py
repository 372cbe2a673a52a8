"""Networks that torch compiles: with the hooks on them they are one graph that answers the same; those that were
compiled before are told (:func:`test_relatives.test_a_compiled_network_is_left_alone`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from support.small import SIDE, SMALL
from torch import Tensor, nn

from asyndm_ext.bench.cases import CASES, texts
from asyndm_ext.bench.guided import PixelModel
from asyndm_ext.bench.subjects import Subject, random_subject
from asyndm_ext.model import pieces

dynamo = pytest.importorskip("torch._dynamo")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if torch.__version__ < "2.10":
        pytest.skip("older versions of torch do not look into hooks")
    for name, case in SMALL.items():
        monkeypatch.setitem(CASES, name, case)
    dynamo.reset()
    yield
    dynamo.reset()


def calls(subject: Subject, network: Callable[[Tensor, Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Answers and maps of the calls of two steps, with other timesteps and more of them in the second."""
    subject.host.network = network
    model = PixelModel(subject.host, subject.network, subject.columns)
    found = []
    with torch.no_grad(), model.attached():
        for step in (8, 9):
            nominal = float(subject.sigmas[step])
            level = torch.full(subject.shape, nominal, dtype=torch.float64)
            level[..., 4:8, 2:12] *= 1.1
            level[0, :, : step - 6] *= 1.05
            model.hooks.begin((SIDE, SIDE))
            answer, maps = model(subject.x, nominal, level), model.attention()
            assert maps is not None
            found.append((answer, maps))
    return found


@pytest.mark.parametrize(
    ("name", "in_pieces"), [*((name, False) for name in SMALL), ("sd21", True), ("sd3", True)], ids=str
)
def test_compiled_with_the_hooks_on(name: str, in_pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if in_pieces:
        monkeypatch.setattr(pieces, "_BYTES", 4096)
    subject = random_subject(name, 1, False, SIDE, CPU, torch.float32)
    told = texts(CASES[name], 1, CPU, torch.float32)
    expected = calls(subject, subject.host.network)
    dynamo.utils.counters.clear()
    # The module itself stays as it is: what a host compiles when it samples.
    compiled = torch.compile(subject.network, backend="eager")
    found = calls(subject, lambda x, t: compiled(x, t, **told))
    assert dict(dynamo.utils.counters["graph_break"]) == {}
    assert dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for (answer, maps), (expected_answer, expected_maps) in zip(found, expected, strict=True):
        assert torch.equal(answer, expected_answer)
        torch.testing.assert_close(maps, expected_maps, rtol=1e-5, atol=1e-7)


def test_torch_finds_the_names_of_its_functions() -> None:
    """It asks those of its module when it compiles, and whoever lists what can be overridden does."""
    subject = random_subject("sd3", 1, False, SIDE, CPU, torch.float32)
    model = PixelModel(subject.host, subject.network, subject.columns)
    with model.attached():
        assert nn.functional.scaled_dot_product_attention.__name__ == "scaled_dot_product_attention"
        assert torch.overrides.get_testing_overrides.__wrapped__()
