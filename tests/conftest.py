"""Repairs, before any test imports it, a torchvision that stands beside a torch it was not built for.

k-diffusion brings torchvision along, PyPI has it for CUDA only, and beside a CPU build of torch its import fails:
its compiled operators do not load, and it registers fallbacks for two of them. diffusers imports torchvision when it
is there. Nothing here computes with these operators, so declaring them is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a declaration lives as long as its library object


def _repair_torchvision() -> None:
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError:
        pass
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(operator)
    _declared.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")


_repair_torchvision()
