"""The WebUI is told by its packages, and an unsupported one by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.kind import webui_kind

LAYOUTS = {
    "a1111": ["modules/processing.py", "ldm/__init__.py"],
    "forge": ["modules_forge/main_entry.py", "backend/__init__.py", "backend/sampling/sampling_function.py"],
    "classic": ["modules_forge/main_entry.py", "ldm_patched/modules/samplers.py"],
    "neo": [
        "modules_forge/packages/huggingface_guess/__init__.py",
        "backend/sampling/sampling_function.py",
    ],
    "another backend": ["modules_forge/main_entry.py", "ldm_patched/modules/samplers.py", "backend/__init__.py"],
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
    for name in [name for name in sys.modules if name.partition(".")[0] in ("backend", "modules_forge")]:
        del sys.modules[name]


@pytest.mark.parametrize("webui", ["a1111", "forge"], indirect=True)
def test_supported(webui: str) -> None:
    assert webui_kind() == webui


@pytest.mark.parametrize("webui", ["classic", "another backend", "neo"], indirect=True)
def test_unsupported_says_what_is_supported(webui: str) -> None:
    which = "moved on.*Neo" if webui == "neo" else "older Forge.*reForge"
    with pytest.raises(AsynDMError, match=rf"supports AUTOMATIC1111's WebUI \(1.10\) and Forge.*{which}"):
        webui_kind()
