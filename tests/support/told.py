"""What the bench's networks tell a device with AsynDM and without, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asyndm_ext.bench import count
from asyndm_ext.bench.count import CALL
from asyndm_ext.bench.counting import Event, Kind, Log
from asyndm_ext.bench.guided import PixelModel
from asyndm_ext.bench.subjects import random_subject
from support import pretend
from support.small import SIDE

CPU = torch.device("cpu")


def number(events: Sequence[Event], kind: Kind, *phases: str) -> int:
    return sum(e.kind == kind and (not phases or e.phase in phases) for e in events)


def waits(events: Sequence[Event]) -> list[Event]:
    return [e for e in events if e.kind == "copy" and e.blocking]


class Told:
    """The answers and maps of two model calls, the second one's events, and those of a plain call."""

    def __init__(
        self,
        name: str,
        batch: int,
        device: torch.device = CPU,
        log: Log | None = None,
        dtype: torch.dtype = torch.float32,
        objects: int = 2,
        channels_last: bool = False,
    ) -> None:
        log = log or Log()
        subject = random_subject(name, batch, False, SIDE, device, dtype)
        columns = [[[2], [5, 6], [3], [1, 4]][:objects]] * batch
        model = PixelModel(subject.host, subject.network, columns)
        if channels_last:
            subject.network.to(memory_format=torch.channels_last)
        nominal = float(subject.sigmas[8])
        level = torch.full(subject.shape, nominal, dtype=torch.float64)
        level[..., 4:8, 2:12] *= 1.1
        level[0, :, :2] *= 1.05
        phases = count.phases(subject.network, log)
        with torch.no_grad(), log.during(CALL):
            for _ in range(2):
                log.clear()
                subject.host.plain(subject.x, nominal)
            self.plain = list(log.events)
            with model.attached():
                for _ in range(2):
                    log.clear()
                    self.answer = model(subject.x, nominal, level)
                    self.maps = model.attention()
            self.asyndm = list(log.events)
        for handle in phases:
            handle.remove()

    @property
    def kernels(self) -> tuple[int, int]:
        """With AsynDM, and without."""
        return number(self.asyndm, "kernel"), number(self.plain, "kernel")


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = (pretend.numbers(found).float() - expected.float()).abs().max() / expected.float().abs().max()
    assert float(difference) < tolerance
