"""k-diffusion's own samplers, without the rest of its package.

``import k_diffusion`` imports training and evaluation code as well (CLIP, clean-fid, wandb, torchvision). The
three modules with the formulas are loaded here under a bare package. Of what those import in turn, nothing that
the tests call needs torchvision, torchdiffeq or torchsde, so an empty stand-in takes the place of any of
these that cannot be imported (torchvision next to a torch that it was not built for, say).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

PACKAGE = "k_diffusion_formulas"
NOT_NEEDED = {
    "torchvision": ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"),
    "torchdiffeq": ("torchdiffeq",),
    "torchsde": ("torchsde",),
}


class _StandIn(types.ModuleType):
    """Hands out None for any name, so that ``from X import name`` succeeds."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _importable(names: tuple[str, ...]) -> bool:
    try:
        for name in names:
            importlib.import_module(name)
    except Exception:  # torchvision next to a foreign torch fails with RuntimeError
        return False
    return True


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Puts stand-ins where an import fails, and takes them away again."""
    before = dict(sys.modules)
    placed: list[str] = []
    try:
        for root, names in NOT_NEEDED.items():
            if _importable(names):
                continue
            for half_loaded in [m for m in sys.modules if m == root or m.startswith(root + ".")]:
                del sys.modules[half_loaded]
            for name in names:
                module = _StandIn(name)
                module.__path__ = []  # type: ignore[attr-defined]
                sys.modules[name] = module
                placed.append(name)
                parent, _, child = name.rpartition(".")
                if parent:
                    setattr(sys.modules[parent], child, module)
        yield
    finally:
        for name in placed:
            del sys.modules[name]
            if name in before:
                sys.modules[name] = before[name]


@cache
def _load() -> tuple[types.ModuleType, types.ModuleType]:
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None and spec.submodule_search_locations
    package = types.ModuleType(PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[PACKAGE] = package
    with _stand_ins():
        sampling = importlib.import_module(f"{PACKAGE}.sampling")
        external = importlib.import_module(f"{PACKAGE}.external")
    return sampling, external


def k_diffusion() -> tuple[types.ModuleType, types.ModuleType]:
    """``(k_diffusion.sampling, k_diffusion.external)``; skips the test where the package is not installed."""
    if importlib.util.find_spec("k_diffusion") is None:
        pytest.skip("k-diffusion is not installed (it is in the test extra)")
    return _load()
