"""Which WebUI this process is, told by the packages that it brings along."""

from __future__ import annotations

import importlib.util
from typing import Literal

from asyndm_ext.hosts.webui.errors import AsynDMError

CONDITIONS = (("backend.sampling.condition", "Condition"), ("ldm_patched.modules.conds", "CONDRegular"))
"""Where Forge and its relatives have a class for what a tensor with a row per image is joined with its like by."""


def webui_kind() -> Literal["a1111", "forge"]:
    """A1111 and its plain descendants, or Forge and its relatives: Forge Neo, Forge Classic, reForge.

    Told by what there is, not by name: an unknown relative is worked with like the others where it has what they have.

    Raises:
        AsynDMError: a relative of Forge that lacks it.
    """
    if not has("modules_forge"):
        return "a1111"
    if not any(has(name) for name, _ in CONDITIONS):
        raise AsynDMError(
            "AsynDM supports AUTOMATIC1111's WebUI (1.10), Forge, Forge Neo, Forge Classic and reForge; this WebUI is "
            f"another relative of Forge, in which it misses {' or '.join(name for name, _ in CONDITIONS)}"
        )
    return "forge"


def has(name: str) -> bool:
    """Whether a module can be imported; nothing but its parent packages is."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
