"""The WebUI is told by its packages; a relative of Forge that lacks what is needed is told what."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.kind import webui_kind

FORGE = ("modules_forge/main_entry.py", "backend/__init__.py", "backend/sampling/condition.py")
PATCHED = ("modules_forge/main_entry.py", "ldm_patched/modules/conds.py")
LAYOUTS = {
    "AUTOMATIC1111": ("modules/processing.py", "ldm/__init__.py"),
    "Forge": FORGE,
    "Forge Neo": (*FORGE, "modules_forge/packages/huggingface_guess/__init__.py"),
    "ersatzForge": (*FORGE, "packages/huggingface_guess/__init__.py"),
    "Forge Classic": PATCHED,
    "reForge": (*PATCHED, "k_diff/__init__.py"),
    "another backend": ("modules_forge/main_entry.py", "ldm_patched/modules/samplers.py", "backend/__init__.py"),
}


@pytest.fixture
def webui(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts a WebUI's packages on the path, empty ones."""
    for file in LAYOUTS[request.param]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield request.param
    packages = ("backend", "modules_forge", "ldm_patched", "k_diff", "packages")
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.mark.parametrize("webui", ["AUTOMATIC1111"], indirect=True)
def test_automatic1111(webui: str) -> None:
    assert webui_kind() == "a1111"


@pytest.mark.parametrize("webui", ["Forge", "Forge Neo", "ersatzForge", "Forge Classic", "reForge"], indirect=True)
def test_forge_and_its_relatives(webui: str) -> None:
    from asyndm_ext.hosts.forge.relatives import relative

    assert webui_kind() == "forge"
    assert relative().name == webui


@pytest.mark.parametrize("webui", ["another backend"], indirect=True)
def test_a_relative_that_lacks_something_is_told_what(webui: str) -> None:
    missing = r"backend\.sampling\.condition or ldm_patched\.modules\.conds"
    with pytest.raises(AsynDMError, match=rf"supports AUTOMATIC1111's WebUI \(1.10\), Forge, .*misses {missing}"):
        webui_kind()
