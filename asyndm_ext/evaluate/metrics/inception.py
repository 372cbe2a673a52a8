"""What the Inception network of FID and KID sees in a picture: torchmetrics' extractor, with weights from a file.

Pictures become squares as in the recipe that the AsynDM paper uses (Pavlov et al., text2image-benchmark): the middle,
bicubic to 299x299. The file pt_inception-2015-12-05-6726825d.pth of pytorch-fid is the same as torch-fidelity's
weights-inception-2015-12-05-6726825d.pth.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from asyndm_ext.evaluate.features import fingerprint
from asyndm_ext.evaluate.metrics import Column, MetricUnavailable

SIDE = 299
FEATURES = 2048


class Inception:
    """Rows of 2048 numbers of pictures, and what they are held against.

    Args:
        weights: file of the weights.
        reference: a folder of pictures, or a file of statistics (.npz with ``mu`` and ``sigma``), which has no KID.
        device: where to compute.

    Raises:
        MetricUnavailable: a package, the weights or the reference are missing, or are something else.
    """

    columns: tuple[Column, ...] = ()
    name = "inception"

    def __init__(self, weights: str = "", reference: str = "", device: str = "cpu") -> None:
        try:
            import torch_fidelity  # noqa: F401
            from torchmetrics.image.fid import NoTrainInceptionV3
        except ImportError as missing:
            raise MetricUnavailable(
                f"fid needs the packages torchmetrics and torch-fidelity (pip install torchmetrics torch-fidelity):"
                f" {missing}"
            ) from None
        path = Path(weights)
        if not weights or not path.is_file():
            raise MetricUnavailable(
                f"fid: there are no weights at {weights or '(nothing given)'}; take"
                " weights-inception-2015-12-05-6726825d.pth of torch-fidelity, and give fid:weights=FILE,reference=..."
            )
        self.reference = Path(reference)
        if not reference or not self.reference.exists():
            raise MetricUnavailable(
                f"fid: there is no reference at {reference or '(nothing given)'}; give reference= a folder of"
                " photographs, or a .npz with their mu and sigma"
            )
        self.weights = path
        self.device = device
        try:
            # Looked at without running what a pickle may hold, before the extractor opens it in its own way.
            torch.load(path, map_location="cpu", weights_only=True)
            network: Any = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(path))
        except (pickle.UnpicklingError, RuntimeError, AttributeError, TypeError) as error:
            told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise MetricUnavailable(f"fid: {path} does not hold the Inception network's weights: {told}") from None
        self._network = network.to(device)

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights: features of others cannot be compared."""
        return fingerprint(self.weights)

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """``(pictures, 2048)``."""
        squares = np.stack([np.asarray(square(picture)) for picture in pictures])
        batch = torch.from_numpy(squares).permute(0, 3, 1, 2).to(self.device)
        return self._network(batch).float().cpu().numpy()


def square(picture: Image.Image) -> Image.Image:
    """The picture's middle, 299x299."""
    return ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
