"""How much of the picture was slow, and whether that is worth a word to the user."""

from __future__ import annotations

from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings

# Of the picture, from which on there is hardly any context left to wait for.
NEARLY_ALL = 0.98


class Coverage:
    """Watches the steps of a pass."""

    def __init__(self) -> None:
        self._largest: list[float] = []
        self._strongest = 0.0

    def watch(self, record: StepRecord) -> None:
        slow = (record.strength > 0).double().mean(dim=(1, 2, 3))
        self._largest.append(float(slow.max()))
        self._strongest = max(self._strongest, float(record.strength.max()))

    def note(self, settings: Settings) -> str | None:
        """What the user should know about the finished pass, or None."""
        if settings.strongest == 0 or settings.curve == "linear" or not self._largest:
            return None
        if self._strongest == 0:
            return "no pixel lagged behind, so this is the ordinary picture"
        slow = sorted(self._largest)[len(self._largest) // 2]
        if settings.region != "everything" and slow >= NEARLY_ALL:
            return "the slow region covered the whole picture, so there was no clearer context to wait for"
        return None
