"""A plain pass leaves no trace in the random numbers of any device."""

from __future__ import annotations

import sys
import types
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asyndm_ext.machine import random_state as module
from asyndm_ext.machine.random_state import random_state


class Devices:
    """Stands in for ``torch.cuda`` and ``torch.xpu``: as many devices as one likes, each with a state of its own."""

    def __init__(self, count: int, initialized: bool = True) -> None:
        self.states = [torch.tensor([number]) for number in range(count)]
        self.initialized, self.asked = initialized, 0

    def is_available(self) -> bool:
        return bool(self.states)

    def is_initialized(self) -> bool:
        return self.initialized

    def get_rng_state_all(self) -> list[torch.Tensor]:
        self.asked += 1
        return [state.clone() for state in self.states]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.states = [state.clone() for state in states]

    def draw(self) -> None:
        self.states = [state + 7 for state in self.states]


class Single:
    """Stands in for ``torch.mps``, which has one device and, in older versions of torch, does not say so."""

    def __init__(self) -> None:
        self.state = torch.tensor([5])

    def get_rng_state(self) -> torch.Tensor:
        return self.state.clone()

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state.clone()

    def draw(self) -> None:
        self.state = self.state + 7


def drawn() -> list[float]:
    return torch.rand(3).tolist()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {"cuda": Devices(3), "xpu": Devices(2), "mps": Single()}
    for name, one in found.items():
        monkeypatch.setattr(torch, name, one, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    return found


def test_every_device_is_put_back(devices: dict[str, Any]) -> None:
    restore, expected = random_state(), drawn()
    for one in devices.values():
        one.draw()
    restore()
    assert drawn() == expected
    assert [state.item() for state in devices["cuda"].states] == [0, 1, 2]
    assert [state.item() for state in devices["xpu"].states] == [0, 1]
    assert devices["mps"].state.item() == 5


def test_a_device_that_nobody_uses_is_not_set_up(devices: dict[str, Any]) -> None:
    devices["cuda"].initialized = False
    random_state()()
    assert devices["cuda"].asked == 0


def test_a_torch_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in module.ACCELERATORS:
        monkeypatch.delattr(torch, name, raising=False)
    restore, expected = random_state(), drawn()
    restore()
    assert drawn() == expected


class Philox:
    """As the WebUI's own generator, which imitates a GPU's."""

    def __init__(self, seed: int) -> None:
        self.seed, self.offset = seed, 0


def test_a_rehearsal_leaves_no_trace(devices: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(textinfo="Title", sampling_step=9)
    modules = types.ModuleType("modules")
    modules.shared = SimpleNamespace(state=state)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.delitem(sys.modules, "asyndm_ext.hosts.webui.plain_pass", raising=False)
    rehearsal = import_module("asyndm_ext.hosts.webui.plain_pass").rehearsal
    sys.modules.pop("asyndm_ext.hosts.webui.plain_pass")

    generators = [torch.Generator().manual_seed(4), Philox(4)]
    p = SimpleNamespace(rng=SimpleNamespace(generators=generators), refiner_checkpoint_info="refiner")
    denoiser = SimpleNamespace(step=0, padded_cond_uncond=False, padded_cond_uncond_v0=False)
    expected = torch.rand(2, generator=torch.Generator().manual_seed(4)).tolist()
    with pytest.raises(RuntimeError, match="interrupted"), rehearsal(p, denoiser):
        assert (p.refiner_checkpoint_info, state.textinfo) == (None, "AsynDM: a plain pass for the fixed mask")
        torch.rand(2, generator=p.rng.generators[0])
        p.rng.generators[1].offset = 3
        denoiser.step, denoiser.padded_cond_uncond = 5, True
        for one in devices.values():
            one.draw()
        raise RuntimeError("interrupted")
    assert torch.rand(2, generator=p.rng.generators[0]).tolist() == expected
    assert p.rng.generators[1].offset == 0
    assert (p.refiner_checkpoint_info, state.textinfo, state.sampling_step) == ("refiner", "Title", 0)
    assert (denoiser.step, denoiser.padded_cond_uncond) == (0, False)
    assert [one.item() for one in devices["cuda"].states] == [0, 1, 2] and devices["mps"].state.item() == 5
