"""What the judge has seen, in words."""

from __future__ import annotations

from asyndm_ext.world.judge import Seen, verdict
from asyndm_ext.world.words import SceneText


def faults(seen: Seen, text: SceneText) -> list[str]:
    """What is wrong with a picture, in words; nothing where it shows what the text says."""
    points = vars(verdict(seen, text)).items()
    return [f"the {name} is not as the prompt says" for name, right in points if right is False]
