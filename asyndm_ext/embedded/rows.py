"""One prompt from several seeds: for each a row of pictures, one per clock, and what the judge says about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from asyndm_ext.embedded.job import VARIANTS, Job, Variant
from asyndm_ext.embedded.sampling import Result, run_variant
from asyndm_ext.picture.drawing import to_picture
from asyndm_ext.world.scenes import SIZE
from asyndm_ext.world.telling import Opinion
from asyndm_ext.world.words import read

if TYPE_CHECKING:
    from asyndm_ext.world.judge import Judge
    from asyndm_ext.world.model import WorldModel

VISIBLE = 24
"""Of 255: from this difference in a colour channel on, two pixels look different."""


@dataclass(frozen=True)
class Drawn:
    """A picture, how it came about, and what the judge says; None where nobody can say."""

    picture: Image.Image
    result: Result
    opinion: Opinion | None


@dataclass(frozen=True)
class Row:
    """What became of one seed."""

    job: Job
    drawn: dict[Variant, Drawn]

    @property
    def difference(self) -> NDArray[np.uint8]:
        """Between plain and AsynDM, ``(H,W)``: of the channel that differs most, single pixels smoothed away."""
        plain, asyndm = (self.drawn[v].picture.filter(ImageFilter.BoxBlur(1)) for v in ("plain", "asyndm"))
        apart = np.asarray(plain, dtype=np.int16) - np.asarray(asyndm, dtype=np.int16)
        return np.abs(apart).max(axis=2).astype(np.uint8)

    @property
    def changed(self) -> float:
        """The share of pixels that look different with AsynDM."""
        return float((self.difference >= VISIBLE).mean())


def judged_at(job: Job) -> bool:
    """Whether the judge knows pictures of this size. Others have the animals at sizes that it has never seen."""
    return job.size == (SIZE, SIZE)


def draw_row(
    model: WorldModel,
    judge: Judge | None,
    job: Job,
    on_variant: Callable[[Variant], object] = lambda variant: None,
    on_step: Callable[[], object] = lambda: None,
) -> Row:
    """A seed's pictures, one after the other, each as it would be alone.

    Args:
        model: the embedded model, or one of its kind.
        judge: None: nothing is said about right and wrong.
        job: what to draw, from which seed.
        on_variant: called before each picture.
        on_step: called after every step; what it raises ends the run.
    """
    results: dict[Variant, Result] = {}
    for variant in VARIANTS:
        on_variant(variant)
        results[variant] = run_variant(model, job, variant, on_step=on_step)
    images = torch.cat([model.decode(result.latent) for result in results.values()])
    opinions: Sequence[Opinion | None] = [None] * len(VARIANTS)
    if judge is not None:
        from asyndm_ext.world.judge import verdict

        text = read(job.prompt).text
        opinions = [Opinion(seen, text, verdict(seen, text)) for seen in judge.see(images)]
    return Row(
        job,
        {
            variant: Drawn(to_picture(image), results[variant], opinion)
            for variant, image, opinion in zip(VARIANTS, images, opinions, strict=True)
        },
    )


def right(rows: Sequence[Row], variant: Variant) -> int | None:
    """How many of a clock's pictures are right; None where nobody can say."""
    opinions = [row.drawn[variant].opinion for row in rows]
    return sum(one.right for one in opinions if one) if all(opinions) else None
