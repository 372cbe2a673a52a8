"""What the last job did, step by step, for whoever asks afterwards: a few numbers per step, and masks in 8 bits."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asyndm_ext.region import mask_image
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
        mask: the strength map in 8 bits ``(B,H,W)``, or None: the only part that is not final.
    """

    number: int
    base: float
    smallest: list[float]
    largest: list[float]
    slow: list[float]
    mask: Tensor | None = None

    def answer(self, mask: Tensor | None) -> dict[str, Any]:
        numbers = zip(self.smallest, self.largest, self.slow, strict=True)
        images = [
            {
                "smallest": smallest,
                "largest": largest,
                "slow": slow,
                "mask": None if mask is None else _png(mask[image]),
            }
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

    def answer(self) -> dict[str, Any]:
        """JSON types, all but the steps."""
        plain = {name: getattr(self, name) for name in ("kind", "iteration", "sampler", "unit", "objects", "finished")}
        return {**plain, "size": list(self.size)}


@dataclass
class _Job:
    """What is known of one job.

    Attributes:
        masks: steps by the mask that they share, oldest first; those whose mask is gone are not in there.
        used: bytes of these masks.
    """

    settings: dict[str, Any]
    passes: list[Pass] = field(default_factory=list)
    masks: deque[list[Step]] = field(default_factory=deque)
    used: int = 0


class LastRun:
    """Keeps the last job. Bounded: the oldest masks go when the budget is used up, old passes when there are very many.

    One thread samples while others ask. Each :meth:`answer` is of one job at one moment. The lock is held to add a step
    or to copy references, never while a mask is made or written as a picture.

    Args:
        mask_bytes: the masks of all steps take no more.
        max_passes: how many passes are kept.
    """

    def __init__(self, mask_bytes: int = MASK_BYTES, max_passes: int = MAX_PASSES) -> None:
        self._mask_bytes, self._max_passes = mask_bytes, max_passes
        self._lock = threading.Lock()
        self._job: _Job | None = None

    def forget(self) -> None:
        """A new job begins, or nobody wants to know any more."""
        with self._lock:
            self._job = None

    def begin_pass(self, settings: Settings, one: Pass) -> PassRecord:
        """A pass of the present job begins, or the first one of a new job."""
        mask = settings.mask and "sha256:" + hashlib.sha256(settings.mask.encode()).hexdigest()
        with self._lock:
            if self._job is None:
                self._job = _Job({**settings.to_dict(), "mask": mask})
            self._job.passes = [*self._job.passes, one][-self._max_passes :]
            return PassRecord(self._lock, self._job, one, self._mask_bytes)

    def answer(self, masks: bool = True) -> dict[str, Any] | None:
        """JSON types; None before the first job.

        Args:
            masks: with the masks as PNG.
        """
        with self._lock:
            job = self._job
            if job is None or not job.passes:
                return None
            # A mask that goes meanwhile is still in this answer.
            passes = [
                (one.answer(), list(one.steps), [step.mask if masks else None for step in one.steps])
                for one in job.passes
            ]
        return {
            "settings": job.settings,
            "passes": [
                {**plain, "steps": [step.answer(mask) for step, mask in zip(steps, kept, strict=True)]}
                for plain, steps, kept in passes
            ],
        }


class PassRecord:
    """Takes the steps of one pass, also when its job has been forgotten meanwhile."""

    def __init__(self, lock: threading.Lock, job: _Job, one: Pass, mask_bytes: int) -> None:
        self._lock, self._job, self._pass, self._mask_bytes = lock, job, one, mask_bytes
        self._newest: Tensor | None = None

    def watch(self, record: StepRecord) -> None:
        """Take a step."""
        low, high = record.level.amin(dim=(1, 2, 3)), record.level.amax(dim=(1, 2, 3))
        slow = (record.strength > 0).double().mean(dim=(1, 2, 3))
        step = Step(record.step, record.nominal, low.tolist(), high.tolist(), slow.tolist())
        stays = record.strength is self._newest
        mask = None if stays else (record.strength[:, 0] * 255).round().to(torch.uint8)
        self._newest = record.strength
        with self._lock:
            self._pass.steps.append(step)
            self._keep_mask(step, mask)

    def finish(self) -> None:
        """The pass is over."""
        self._newest = None
        with self._lock:
            self._pass.finished = True

    def drop(self) -> None:
        """The pass has gone on without AsynDM before its first step."""
        with self._lock:
            self._job.passes = [one for one in self._job.passes if one is not self._pass]

    def _keep_mask(self, step: Step, mask: Tensor | None) -> None:
        """Under the lock. None: the step before has the same mask; it is kept once."""
        masks = self._job.masks
        if mask is None:
            if masks:
                step.mask = masks[-1][-1].mask
                masks[-1].append(step)
            return
        step.mask = mask
        masks.append([step])
        self._job.used += mask.numel()
        while self._job.used > self._mask_bytes:
            oldest = masks.popleft()
            assert oldest[0].mask is not None
            self._job.used -= oldest[0].mask.numel()
            for one in oldest:
                one.mask = None


def _png(mask: Tensor) -> str:
    from PIL import Image

    height, width = mask.shape
    return mask_image.encode(Image.frombytes("L", (width, height), bytes(mask.contiguous().numpy().tobytes())))
