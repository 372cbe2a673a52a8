"""What other extensions do to the calls of a pass, and what to say about it afterwards.

Nothing is read back from the device unless somebody is there who could have done something: reading has to wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from modules import script_callbacks
from torch import Tensor

from asyndm_ext.model.levels import CallLevels

_MARKS = 16


def others_listen() -> bool:
    """Whether another extension is called before each call of the network, and may change its noise level."""
    return bool(script_callbacks.callback_map.get("callbacks_cfg_denoiser"))


class Neighbours:
    """Of one pass."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._unnoticed: Tensor | None = None
        self._first: tuple[Tensor, CallLevels] | None = None
        self._maps: Tensor | None = None
        self._images: list[list[float]] = []

    # -- the noise level

    def change(self, given: Tensor, nominal: float, rows: int, look: bool) -> tuple[Tensor, list[float]]:
        """The level to call the host with, and by which factor others have changed that of each row.

        Args:
            given: what the host was about to take, ``(rows,)`` if nobody has put anything else there.
            nominal: what it was.
            look: somebody is there who may have changed it.
        """
        if not look and given.device.type != "cpu":
            changed = (given != torch.full_like(given, nominal)).any()
            self._unnoticed = changed if self._unnoticed is None else self._unnoticed | changed
            return given, [1.0] * rows
        # As the host's type of number has it.
        unchanged = float(torch.tensor(nominal, dtype=given.dtype))
        values = given.detach().double().flatten().tolist()
        problem = _problem(values, unchanged, rows)
        if problem is not None:
            self.note(f"another extension's change of the noise level was left out: {problem}")
            return torch.full((rows,), nominal, dtype=torch.float32, device=given.device), [1.0] * rows
        factors = [1.0 if value == unchanged else value / unchanged for value in values]
        return (given, factors) if len(factors) == rows else (given.flatten().expand(rows), factors * rows)

    # -- an earlier latent

    def begins(self, x: Tensor, levels: CallLevels, look: bool) -> None:
        """A call of the pass begins, with this latent ``(B,C,H,W)``."""
        if look and self._first is None:
            self._first = x.clone(), levels

    def back_at_the_first(self, x: Tensor, images: Sequence[int], sigma: Tensor) -> CallLevels | None:
        """The levels of the pass's first call, where another extension has put that call's latent and noise level in
        the place of this one's (Regional Prompter's Prompt mode does once it knows its regions); otherwise None.

        Args:
            x: of this call's rows. images: the image that each belongs to. sigma: of each.
        """
        if self._first is None:
            return None
        latent, levels = self._first
        there = bool((sigma == torch.full_like(sigma, levels.nominal)).all())
        return levels if there and torch.equal(x, latent[list(images)].to(x)) else None

    # -- the order of the rows

    def remember_images(self, x: Tensor) -> None:
        """The images of a call that begins, ``(B,C,H,W)``: somebody may change the order of its rows."""
        self._images = _marks(x)

    def images_of(self, x: Tensor, planned: Sequence[int]) -> list[int]:
        """The image that each row belongs to: the planned one, unless the row is plainly another's (Regional Prompter's
        Latent mode puts the rows of a batch into another order)."""
        if not self._images:
            return list(planned)
        found = []
        for mark, image in zip(_marks(x), planned, strict=True):
            others = [number for number, own in enumerate(self._images) if own == mark]
            found.append(image if not others or image in others else others[0])
        return found

    # -- what makes the masks

    def maps(self, found: Tensor | None, what: str) -> Tensor | None:
        """What was found in a call, ``(B,n,h,w)``; where nothing was, what was in the call before, if anything.

        Args:
            what: it was found in.
        """
        if found is None and self._maps is not None:
            self.note(f"the {what} could not be read in every step, so masks of the step before were kept")
            return self._maps
        self._maps = found
        return found

    # -- afterwards

    def note(self, text: str) -> None:
        """Something to say about the pass, once."""
        if text not in self._notes:
            self._notes.append(text)

    def said(self) -> str | None:
        """What the user should know about the finished pass, or None."""
        if self._unnoticed is not None and bool(self._unnoticed):
            reason = "another extension's change of the noise level was left out: it was made where it cannot be seen"
            self.note(reason)
        self._unnoticed = None
        return "; ".join(self._notes) or None


def factor_of(scalar: Tensor, nominal: float) -> Tensor | None:
    """By which factor others have changed the host's level ``(B,)`` in its place; ``(B,1,1,1)`` float64 on the CPU.

    None: not at all, or to what is no level.
    """
    factors = scalar.detach().double().cpu() / float(torch.tensor(nominal, dtype=scalar.dtype))
    if not bool((factors.isfinite() & (factors > 0)).all()) or bool((factors == 1).all()):
        return None
    return factors.view(-1, 1, 1, 1)


def _marks(x: Tensor) -> list[list[float]]:
    """A few numbers of each row, by which it is known again."""
    values = x.detach().flatten(1)
    return values[:, :: max(1, values.shape[1] // _MARKS)].double().cpu().tolist()


def _problem(values: Sequence[float], unchanged: float, rows: int) -> str | None:
    """Why a change cannot be carried over to maps, or None."""
    if len(values) not in (1, rows):
        problem = "it is not one level per picture"
    elif not all(math.isfinite(value) for value in values):
        problem = "it is not finite"
    elif any(value != unchanged and (value <= 0 or unchanged <= 0) for value in values):
        problem = "it is not above 0"
    else:
        return None
    return problem
