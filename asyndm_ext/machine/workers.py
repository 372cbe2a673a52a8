"""Worker processes that end with their parent, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """A process that is started inside never hears Ctrl+C, not even while it starts.

    A terminal sends it to all of them, and each would answer with a traceback; it is the parent that ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """In a new process: leave Ctrl+C to the parent, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked

    def watch() -> None:
        # A killed parent says nothing: without this its workers would stay.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
