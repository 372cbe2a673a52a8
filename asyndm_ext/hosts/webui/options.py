"""The settings page's section: what is not said per image."""

from __future__ import annotations

from typing import Any

from modules import shared

LAST_RUN = "asyndm_last_run"
CONSOLE = "asyndm_console"
LIVE_PREVIEW = "asyndm_live_preview"


def add() -> None:
    """Callback of the settings page."""
    section = ("asyndm", "AsynDM")
    option = shared.OptionInfo(True, "Keep the last job's numbers and masks for the API", section=section)
    shared.opts.add_option(LAST_RUN, option.info("GET /asyndm/v1/last-run; at most 16 MB of memory"))
    option = shared.OptionInfo(False, "Show the slow pixels in the live preview", section=section)
    shared.opts.add_option(LIVE_PREVIEW, option.info("in orange; from the next pass on, results stay as they are"))
    option = shared.OptionInfo(False, "Say in the console what each pass did", section=section)
    shared.opts.add_option(CONSOLE, option.info("objects, share of slow pixels, and what could not be applied"))


def add_without_page(demo: Any, app: Any) -> None:
    """Callback of the started server: with ``--nowebui`` there is no settings page that would have asked for them, but
    the API sets options all the same."""
    if LAST_RUN not in shared.opts.data_labels:
        add()


def keeps_last_run() -> bool:
    return bool(getattr(shared.opts, LAST_RUN, True))


def tells_console() -> bool:
    return bool(getattr(shared.opts, CONSOLE, False))


def shows_in_preview() -> bool:
    """Whether the slow pixels are to be seen in the live preview, and there is one."""
    return bool(getattr(shared.opts, LIVE_PREVIEW, False) and shared.opts.live_previews_enable)
