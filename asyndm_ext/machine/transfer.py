"""Numbers on their way to the device that a network runs on, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Their copies out of memory that may be given back meanwhile are not known to be safe.
_WAITS = ("mps",)
_PINS = ("cuda",)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device.

    The processor goes on at once: what the device was told before does not have to be finished. A GPU takes it from
    memory that stays where it is, which torch keeps for the next time.
    """
    if x.device == device:
        return x
    if device.type in _PINS and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type not in _WAITS)


def sent_together(parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Several in one copy. All are of 4 bytes a number, whatever their types."""
    if all(part.device == device for part in parts):
        return list(parts)
    packed = sent(torch.cat([part.contiguous().view(torch.int32).flatten() for part in parts]), device)
    found, at = [], 0
    for part in parts:
        found.append(packed[at : at + part.numel()].view(part.dtype).view(part.shape))
        at += part.numel()
    return found
