"""Which WebUI this process is, told by the packages that it brings along."""

from __future__ import annotations

import importlib.util
from typing import Literal

from asyndm_ext.hosts.webui.errors import AsynDMError


def webui_kind() -> Literal["a1111", "forge"]:
    """A1111 and its plain descendants, or Forge.

    Raises:
        AsynDMError: a descendant of Forge's early days (Forge Classic, reForge), whose model calls go through another
            engine, or one that has moved on from it (Forge Neo, which keeps packages of others in its own).
    """
    if not _has("modules_forge"):
        return "a1111"
    if not _has("backend.sampling.sampling_function"):
        raise AsynDMError(
            "AsynDM supports AUTOMATIC1111's WebUI (1.10) and Forge (lllyasviel's, of 2025); this WebUI is built on an "
            "older Forge (Forge Classic or reForge, say), whose models it cannot reach"
        )
    if _has("modules_forge.packages"):
        raise AsynDMError(
            "AsynDM supports AUTOMATIC1111's WebUI (1.10) and Forge (lllyasviel's, of 2025); this WebUI has moved on "
            "from that Forge (Forge Neo, say), and AsynDM was never run in it"
        )
    return "forge"


def _has(name: str) -> bool:
    """Whether a module can be imported; nothing but its parent packages is."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
