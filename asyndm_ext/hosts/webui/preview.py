"""The slow pixels in the host's live preview, while a pass is sampled.

The host decodes the latent, in whatever way it is set to, and hands the picture to its state object, often in another
thread: when the page asks for it. In front of that last step, on this one object, stands a function that tints the
picture. With it gone the host's own is there again, and so is the last preview without the tint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modules import images, shared
from PIL import Image

from asyndm_ext.hosts.webui import options
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui.preview import over_preview

_METHOD = "assign_current_image"


@contextmanager
def overlay(settings: Settings) -> Iterator[list[Callable[[StepRecord], None]]]:
    """While this block runs the live preview shows the slow pixels; yields what has to watch the steps.

    Nothing at all where it is not asked for, or where the host shows no previews.
    """
    if not options.shows_in_preview() or settings.strongest == 0:
        yield []
        return
    state = shared.state
    overlaid = _Overlay(state, settings)
    before = vars(state).get(_METHOD)  # another extension's
    setattr(state, _METHOD, overlaid.assign)
    try:
        yield [overlaid.watch]
    finally:
        if before is None:
            delattr(state, _METHOD)
        else:
            setattr(state, _METHOD, before)
        overlaid.end()


class _Overlay:
    """Of one pass."""

    def __init__(self, state: Any, settings: Settings) -> None:
        self._state, self._host_assign = state, getattr(state, _METHOD)
        self._full = settings.strongest
        self._lock = threading.Lock()
        self._latest: StepRecord | None = None
        self._shown: Any = None
        self._plain: Any = None

    def watch(self, record: StepRecord) -> None:
        """Called at the end of each step."""
        self._latest = record

    def assign(self, picture: Image.Image) -> None:
        """In the place of the host's: what it does with a new preview."""
        with self._lock:
            record = self._latest
            if record is None:
                self._host_assign(picture)
                return
            self._host_assign(over_preview(picture, record.strength, self._full, _grid(len(record.strength))))
            self._shown, self._plain = self._state.current_image, picture

    def end(self) -> None:
        """Who still comes from another thread gets the host's own, and so does whoever looks from now on."""
        with self._lock:
            self._latest = None
            if self._shown is not None and self._state.current_image is self._shown:
                self._state.current_image = self._plain


def _grid(count: int) -> tuple[int, int]:
    """Columns and rows of the host's preview of so many images. Where memory is short (``--lowvram``) it decodes in
    the thread that samples, and then the first image alone."""
    if not (shared.opts.show_progress_grid and shared.parallel_processing_allowed):
        return 1, 1
    return images.image_grid([Image.new("L", (1, 1))] * count).size
