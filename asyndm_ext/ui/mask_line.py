"""The line above the Mask field: in words, which mask a job would use, and a button where something is amiss.

All that a button does is decided here; the page only presses the control that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from asyndm_ext.settings import REGIONS

REGIONS_WITH_MASK = tuple(region for region in REGIONS if "mask" in region)
WHOLE = "whole"
"""Name of the control that makes a mask out of a picture in colour."""

_LOST = "A mask does not come back with an infotext: it is a picture."


def switch_to(region: str) -> str:
    """Name of the control that chooses a region."""
    return f"to_{region.replace(' ', '_')}"


def html(region: str, kind: str, inpaint: bool = False) -> str:
    """The line.

    Args:
        region: as the job would have it.
        kind: of the mask, see :data:`asyndm_ext.ui.painted.Kind`.
        inpaint: whether a job without a mask of its own may have an inpaint mask.
    """
    if region not in REGIONS_WITH_MASK:
        if not kind:
            return ""
        buttons = {switch_to(other): other for other in REGIONS_WITH_MASK}
        return _line(f"There is a picture in Mask, but the region “{region}” does not use it. Switch to:", buttons)
    if kind == "painted":
        return _line("The mask is what you have painted.", calm=True)
    if kind == "picture":
        return _line("The mask is the picture itself: its white parts count. To choose other parts, paint.", calm=True)
    if kind == "photo":
        text = (
            "Nothing is painted on the picture yet, and a picture in colour is no mask: paint over the part you mean."
        )
        return _line(text, {WHOLE: "use its brightness"})
    if inpaint:
        return _line(f"There is no mask here: that of the Inpaint tab is used, and without one the job stops. {_LOST}")
    return _line(
        f"There is no mask yet, and the region “{region}” needs one: paint on a picture in Mask, or upload a black and "
        f"white one. {_LOST}"
    )


def _line(text: str, buttons: Mapping[str, str] | None = None, calm: bool = False) -> str:
    kind = "asyndm-lead" if calm else "asyndm-heed"
    after = "".join(
        f'<button type="button" class="asyndm-chip" data-press="{name}">{escape(label)}</button>'
        for name, label in (buttons or {}).items()
    )
    return f'<div class="asyndm-chips"><span class="{kind}">{escape(text)}</span>{after}</div>'
