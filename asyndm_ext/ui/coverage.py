"""How much of the picture was slow, and whether that is worth a word to the user."""

from __future__ import annotations

from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings

NOTHING_LAGGED = "no pixel lagged behind, so this is the ordinary picture"

# Of the picture, from which on there is hardly any context left to wait for.
NEARLY_ALL = 0.98
_ROUNDING = 1e-9


class Coverage:
    """Watches the steps of a pass."""

    def __init__(self) -> None:
        self._largest: list[float] = []
        self._lagged = False

    def watch(self, record: StepRecord) -> None:
        # Half as slow as the slowest is context for it: soft objects are a little slow everywhere.
        slowest = record.strength.amax(dim=(1, 2, 3), keepdim=True)
        slow = (record.strength > slowest / 2).double().mean(dim=(1, 2, 3))
        self._largest.append(float(slow.max()))
        self._lagged = self._lagged or bool((record.level > record.nominal * (1 + _ROUNDING)).any())

    def summary(self) -> str:
        """In a few words, how much was slow."""
        if not self._largest:
            return "no step"
        share = sum(self._largest) / len(self._largest)
        return f"{len(self._largest)} steps, {share:.0%} of the picture slow on average"

    def note(self, settings: Settings) -> str | None:
        """What the user should know about the finished pass, or None."""
        if not self._lagged:  # strength 0, no region, or so few steps that all pixels start and end together
            return NOTHING_LAGGED
        slow = sorted(self._largest)[len(self._largest) // 2]
        if settings.region != "everything" and slow >= NEARLY_ALL:
            return "the slow region covered the whole picture, so there was no clearer context to wait for"
        if settings.uses_guidance and settings.objects:
            return "the mask source 'guidance' knows no words, so those in Objects and their order were not used"
        return None
