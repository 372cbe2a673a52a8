"""The pretend accelerator rings where a real one would stumble, and computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import pretend
from support.ldm_unet import LdmUNet
from torch import Tensor, nn


def on_gpu(x: Tensor) -> Tensor:
    return x.to(pretend.DEVICE, non_blocking=True)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here @ there,
        lambda here, there: here.index_select(0, torch.tensor([0])),
        lambda here, there: torch.where(here > 0, here, there),
        lambda here, there: here.mul_(there),
        lambda here, there: there.add_(here),
    ],
)
def test_two_devices_in_one_operator(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pretend.accelerator(), pytest.raises(RuntimeError, match="on the same device"):
        mixed(on_gpu(torch.ones(3, 3)), torch.ones(3, 3))


def test_a_number_may_be_anywhere() -> None:
    with pretend.accelerator():
        found = on_gpu(torch.ones(3)) * torch.tensor(2.0)
    assert torch.equal(pretend.numbers(found), torch.full((3,), 2.0))


BELLS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "float": (lambda x: float(x.sum()), "read-back"),
    "bool": (lambda x: bool((x > 0).all()), "read-back"),
    "item": (lambda x: x[0, 0].item(), "read-back"),
    "cpu": (lambda x: x.cpu(), "read-back"),
    "to": (lambda x: x.to("cpu", non_blocking=True), "read-back"),
    "tolist": (lambda x: x.tolist(), "read-back"),
    "copy_ from": (lambda x: torch.zeros(3, 3).copy_(x), "read-back"),
    "equal": (lambda x: torch.equal(x, x), "read-back"),
    "unique": (lambda x: x.unique(), "read-back"),
    "nonzero": (lambda x: x.nonzero(), "read-back"),
    "mask": (lambda x: x[x > 0], "read-back"),
    "list": (lambda x: torch.tensor([1.0, 2.0], device=x.device), "copy"),
    "as_tensor": (lambda x: torch.as_tensor([1, 2], device=x.device), "copy"),
    "to the device": (lambda x: torch.ones(2).to(x.device), "copy"),
    "copy_": (lambda x: x.copy_(torch.ones(3, 3)), "copy"),
    "list as index": (lambda x: x[[0, 1]], "copy"),
    "list as index, set": (lambda x: x.__setitem__((slice(None), [0, 1]), 1.0), "copy"),
    "index from the processor": (lambda x: x[torch.tensor([0, 1])], "copy"),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("bell", BELLS)
def test_the_alarm_rings(bell: str, inference: bool) -> None:
    """Whatever makes the processor wait is in the log, with the line that asked for it."""
    act, kind = BELLS[bell]
    with pretend.accelerator() as log, torch.inference_mode(inference):
        x = on_gpu(torch.ones(3, 3))
        log.clear()
        act(x)
    waits = [event for event in log.events if event.blocking]
    assert [event.kind for event in waits] == [kind], log.told("copy") + log.told("read-back")
    assert waits[0].place.startswith("unit/test_pretend.py:")


QUIET: dict[str, Callable[[Tensor], object]] = {
    "view": lambda x: x.view(-1)[2:].unsqueeze(0).expand(4, -1),
    "empty": torch.empty_like,
    "shape": lambda x: (x.shape, x.stride(), x.dtype, len(x)),
}


@pytest.mark.parametrize("name", QUIET)
def test_what_costs_nothing_is_not_counted(name: str) -> None:
    with pretend.accelerator() as log:
        x = on_gpu(torch.ones(3, 3))
        log.clear()
        QUIET[name](x)
    assert log.events == []


def test_kernels_are_counted() -> None:
    with pretend.accelerator() as log:
        x = on_gpu(torch.ones(3, 4))
        log.clear()
        nn.functional.silu(x @ x.t()).add_(1).half()
    assert [event.what for event in log.of("kernel")] == ["mm", "silu", "add_", "_to_copy"]


@pytest.mark.parametrize("how", [{"non_blocking": True}, {}])
def test_a_copy_that_does_not_wait(how: dict[str, bool]) -> None:
    with pretend.accelerator() as log:
        torch.ones(3).to(pretend.DEVICE, **how)
    assert [(event.kind, event.blocking) for event in log.events] == [("copy", not how)]


def test_phases() -> None:
    with pretend.accelerator() as log:
        x = on_gpu(torch.ones(3))
        with log.during("outside"):
            x + 1
            with log.during("inside"):
                x + 2
            x + 3
    assert [event.phase for event in log.of("kernel")] == ["outside", "inside", "outside"]
    assert len(log.of("kernel", ["inside"])) == 1


@pytest.mark.parametrize("inference", [False, True])
def test_it_computes_what_the_cpu_computes(inference: bool) -> None:
    torch.manual_seed(0)
    network = LdmUNet(labels=10).eval().requires_grad_(False)
    inputs = torch.randn(2, 4, 16, 24), torch.full((2,), 300.0), torch.randn(2, 10)
    expected = network(*inputs)
    with pretend.accelerator() as log, torch.inference_mode(inference):
        found = network.to(pretend.DEVICE)(*(x.to(pretend.DEVICE) for x in inputs))
        assert found.device.type == pretend.DEVICE
        assert torch.equal(found.cpu(), expected)
    assert len(log.of("kernel")) > 100
