"""The settings page's section: what is not said per image."""

from __future__ import annotations

from modules import shared

LAST_RUN = "asyndm_last_run"
CONSOLE = "asyndm_console"


def add() -> None:
    """Callback of the settings page."""
    section = ("asyndm", "AsynDM")
    option = shared.OptionInfo(True, "Keep the last job's numbers and masks for the API", section=section)
    shared.opts.add_option(LAST_RUN, option.info("GET /asyndm/v1/last-run; at most 16 MB of memory"))
    option = shared.OptionInfo(False, "Say in the console what each pass did", section=section)
    shared.opts.add_option(CONSOLE, option.info("objects, share of slow pixels, and what could not be applied"))


def keeps_last_run() -> bool:
    return bool(getattr(shared.opts, LAST_RUN, True))


def tells_console() -> bool:
    return bool(getattr(shared.opts, CONSOLE, False))
