"""What the last job did, step by step, for whoever asks afterwards: a few numbers per step, and masks in 8 bits."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asyndm_ext import mask_image
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings

MASK_BYTES = 16 * 2**20
MAX_PASSES = 256


@dataclass
class Step:
    """One step of a batch.

    Attributes:
        number, base: of the step; the host's own level.
        smallest, largest, slow: per image, the range of the levels and the fraction of slow pixels.
        mask: the strength map in 8 bits ``(B,H,W)``, or None.
    """

    number: int
    base: float
    smallest: list[float]
    largest: list[float]
    slow: list[float]
    mask: Tensor | None = None

    def answer(self, masks: bool) -> dict[str, Any]:
        kept = self.mask if masks else None  # looked up once: a job that runs meanwhile may let go of it

        def picture(image: int) -> str | None:
            return None if kept is None else _png(kept[image])

        numbers = zip(self.smallest, self.largest, self.slow, strict=True)
        images = [
            {"smallest": smallest, "largest": largest, "slow": slow, "mask": picture(image)}
            for image, (smallest, largest, slow) in enumerate(numbers)
        ]
        return {"step": self.number, "base": self.base, "images": images}


@dataclass
class Pass:
    """A sampling pass of the job.

    Attributes:
        kind: "txt2img", "img2img", "hires", "adetailer".
        iteration: number of the batch.
        unit: of the levels, "sigma" or "timestep".
        size: of the latent, ``(H, W)``.
        objects: names per image.
    """

    kind: str
    iteration: int
    sampler: str
    unit: str
    size: tuple[int, int]
    objects: list[list[str]] = field(default_factory=list)
    finished: bool = False
    steps: list[Step] = field(default_factory=list)

    def answer(self, masks: bool) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("kind", "iteration", "sampler", "unit", "objects", "finished")}
        return {**plain, "size": list(self.size), "steps": [step.answer(masks) for step in list(self.steps)]}


class LastRun:
    """Keeps the last job. Bounded: the oldest masks go when the budget is used up, old passes when there are very many.

    Args:
        mask_bytes: the masks of all steps take no more.
        max_passes: how many passes are kept.
    """

    def __init__(self, mask_bytes: int = MASK_BYTES, max_passes: int = MAX_PASSES) -> None:
        self._mask_bytes, self._max_passes = mask_bytes, max_passes
        self.forget()

    def forget(self) -> None:
        """A new job begins, or nobody wants to know any more."""
        self._settings: dict[str, Any] | None = None
        self._passes: list[Pass] = []
        # Steps by the mask that they share, oldest first.
        self._masks: deque[list[Step]] = deque()
        self._used = 0
        self._newest: Tensor | None = None

    def begin_pass(self, settings: Settings, one: Pass) -> None:
        if self._settings is None:
            mask = settings.mask and "sha256:" + hashlib.sha256(settings.mask.encode()).hexdigest()
            self._settings = {**settings.to_dict(), "mask": mask}
        self._passes = [*self._passes, one][-self._max_passes :]
        self._newest = None

    def watch(self, record: StepRecord) -> None:
        """Take a step of the pass that has begun."""
        low, high = record.level.amin(dim=(1, 2, 3)), record.level.amax(dim=(1, 2, 3))
        slow = (record.strength > 0).double().mean(dim=(1, 2, 3))
        step = Step(record.step, record.nominal, low.tolist(), high.tolist(), slow.tolist())
        self._passes[-1].steps.append(step)
        self._keep_mask(step, record.strength)

    def finish_pass(self) -> None:
        self._passes[-1].finished = True
        self._newest = None

    def drop_pass(self) -> None:
        """The pass that has begun goes on without AsynDM."""
        self._passes = self._passes[:-1]

    def answer(self, masks: bool = True) -> dict[str, Any] | None:
        """JSON types; None before the first job.

        Args:
            masks: with the masks as PNG.
        """
        if self._settings is None:
            return None
        return {"settings": self._settings, "passes": [one.answer(masks) for one in self._passes]}

    def _keep_mask(self, step: Step, strength: Tensor) -> None:
        """In 8 bits; a map that stays the same is kept once."""
        if strength is self._newest and self._masks:
            step.mask = self._masks[-1][-1].mask
            self._masks[-1].append(step)
            return
        step.mask = (strength[:, 0] * 255).round().to(torch.uint8)
        self._newest = strength
        self._masks.append([step])
        self._used += step.mask.numel()
        while self._used > self._mask_bytes:
            oldest = self._masks.popleft()
            assert oldest[0].mask is not None
            self._used -= oldest[0].mask.numel()
            for one in oldest:
                one.mask = None


def _png(mask: Tensor) -> str:
    from PIL import Image

    height, width = mask.shape
    return mask_image.encode(Image.frombytes("L", (width, height), bytes(mask.contiguous().numpy().tobytes())))
