"""Ctrl+C: one line and exit code 130, at any moment.

A ``KeyboardInterrupt`` alone does not give that. Inside the import of a compiled package it comes out as another error,
or as a traceback that nobody can catch. So Ctrl+C ends the process on the spot, except inside :func:`careful`, where
something has been begun that has to be tidied up.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

EXIT_CODE = 130


class _State:
    """Of the process, as signals are."""

    words = "asyndm: interrupted"
    careful = False
    raised = False


def take_over() -> None:
    """From now on Ctrl+C is ours, until the process ends: also while Python shuts down.

    Only where it would raise KeyboardInterrupt anyway: a process that was started to ignore it goes on ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
        sys.unraisablehook = _on_unraisable


def last_words(text: str) -> None:
    """The line that Ctrl+C leaves."""
    _State.words = text


@contextlib.contextmanager
def careful() -> Iterator[None]:
    """Inside, Ctrl+C raises KeyboardInterrupt, to tidy up what was begun. The next one ends the process."""
    _State.careful = True
    try:
        yield
    finally:
        _State.careful = False


def happened() -> bool:
    """Whether Ctrl+C has raised KeyboardInterrupt: whatever else is raised then comes from that."""
    return _State.raised


def _on_interrupt(number: int, frame: Any) -> None:
    if _State.careful:
        _State.careful, _State.raised = False, True
        raise KeyboardInterrupt
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    # No print: the signal may have come in the middle of one. "^C" stands on the line already.
    with contextlib.suppress(OSError):
        os.write(2, f"{os.linesep if os.isatty(2) else ''}{_State.words}{os.linesep}".encode("ascii", "replace"))
    os._exit(EXIT_CODE)


def _on_unraisable(unraisable: Any) -> None:
    """An interrupt that came inside a destructor is lost, with a traceback: ask again, in silence."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _State.careful = True
        # Here it would be lost again.
        again = threading.Timer(0.02, _send)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _send() -> None:
    """Ctrl+C from another thread; a real signal where there is one, for it ends a wait."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
