"""HPSv2.1 (Wu et al. 2023): a CLIP that was trained on which pictures people prefer; its cosine, 0.2 to 0.3 or so.

The authors' package cannot be installed from PyPI; their weights are those of an open_clip model and need nothing else.
"""

from __future__ import annotations

from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.metrics.clip_score import ClipScore


class Hps(ClipScore):
    """The weights HPS_v2.1_compressed.pt, or those of version 2.

    Args:
        weights: file of the weights.
        model: open_clip's name of the architecture.
        device: where to compute.
    """

    columns = (
        Column("hps", "HPSv2.1", "Estimated human preference for the picture, given the prompt (a cosine).", digits=4),
    )
    resize = "longest"  # the whole picture, with black beside it where it is not square, as the authors do
