"""Level maps on their way from the CPU, where they are worked out in float64, to the latent's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.machine.transfer import sent_together

_KEPT = 32  # maps; a step has fewer


@dataclass(frozen=True)
class _Sent:
    """A map that a solver has been given. Attributes: source: what it was made of; here: on the CPU in the solver's
    precision; there: beside the latent."""

    source: Tensor
    here: Tensor
    there: Tensor


class SentMaps:
    """The maps that a run has handed out last: each is sent once, and none is ever read back.

    Args:
        x: the latent; tells device and dtype. Maps are at least float32.
    """

    def __init__(self, x: Tensor) -> None:
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self._device = x.device
        self._handed_out: deque[_Sent] = deque(maxlen=_KEPT)

    def on_device(self, level: Tensor) -> Tensor:
        """A map of the CPU beside the latent; the same one is sent once."""
        return self.all_on_device(level)[0]

    def all_on_device(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Several maps of the CPU beside the latent, in one copy."""
        found = {id(known.source): known.there for known in self._handed_out}
        new = [one for one in maps if id(one) not in found]
        here = [one.to(self.dtype) for one in new]
        for sent in map(_Sent, new, here, sent_together(here, self._device)):
            self._handed_out.append(sent)
            found[id(sent.source)] = sent.there
        return tuple(found[id(one)] for one in maps)

    def between(self, work: Callable[..., Any], *maps: Tensor) -> Any:
        """A level map (or a tuple of them) made of others that were handed out, on the device.

        It is worked out on the CPU and sent, so that :meth:`asyndm_ext.run.Run.model_at` has it there without asking
        the device.
        """
        made = work(*map(self.on_cpu, maps))
        return self.all_on_device(*made) if isinstance(made, tuple) else self.on_device(made)

    def on_cpu(self, level: Tensor) -> Tensor:
        """A level map in the precision that solvers have it in; one that was handed out as it was before."""
        for known in self._handed_out:
            if level is known.there:
                return known.here
        return level.cpu()
