"""What the judge has seen, in words."""

from __future__ import annotations

from asyndm_ext.world.judge import Seen, Verdict
from asyndm_ext.world.words import SceneText


def faults(seen: Seen, text: SceneText, verdict: Verdict) -> list[str]:
    """What is wrong with a picture, in words; nothing where it shows what the text says."""
    return [f"{name} {getattr(text, name)} not as asked" for name, right in vars(verdict).items() if right is False]
