"""The ``asyndm`` command: the first word says which one, and a prompt goes without a word."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from asyndm_ext.commands import interrupts


class Command(NamedTuple):
    """Module with its ``main(argv) -> int``, imported only when it is asked for; and what it does, in a line."""

    module: str
    does: str


COMMANDS: dict[str, Command] = {
    "draw": Command("asyndm_ext.embedded.cli", 'draw a prompt on three clocks; the word "draw" can be left out'),
    "studio": Command(
        "asyndm_ext.studio.command", "the same on a page in the browser, with masks and clocks of every step"
    ),
    "evaluate": Command(
        "asyndm_ext.evaluate.main", "measure whether AsynDM helps, with the embedded model or your WebUI"
    ),
    "bench": Command("asyndm_ext.bench.cli", "measure what a sampling step costs with AsynDM"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns the exit code."""
    if argv is None:
        interrupts.take_over()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if arguments and (meant := _meant(arguments)):
        print(f"asyndm: there is no command {arguments[0]!r}; did you mean {meant}?", file=sys.stderr)
        print("asyndm --help lists the commands.", file=sys.stderr)
        return 2
    import importlib

    named = bool(arguments) and arguments[0] in COMMANDS
    command = COMMANDS[arguments[0] if named else "draw"]
    return int(importlib.import_module(command.module).main(arguments[named:]))


def _meant(arguments: Sequence[str]) -> str | None:
    """The command that a first word nearly names. A prompt goes on behind it, and has words of the little world."""
    word = arguments[0]
    if word in COMMANDS or word.startswith("-") or (len(arguments) > 1 and not arguments[1].startswith("-")):
        return None
    import difflib

    near = difflib.get_close_matches(word.lower(), COMMANDS, 1)
    return near[0] if near and not _is_of_the_world(word) else None


def _is_of_the_world(word: str) -> bool:
    """Whether a prompt may use it: "beach" is no "bench"."""
    try:
        from asyndm_ext.world.words import WORDS
    except ImportError:  # no prompt can be drawn then
        return False
    return word.lower() in WORDS


if __name__ == "__main__":
    raise SystemExit(main())
