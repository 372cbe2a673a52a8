"""``asyndm studio``, ``asyndm bench``, ``asyndm evaluate``; everything else is a prompt for the embedded model."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS: dict[str, str] = {
    "bench": "asyndm_ext.bench.cli",
    "studio": "asyndm_ext.studio.command",
    "evaluate": "asyndm_ext.evaluate.main",
}
"""Name of a command, to the module with its ``main(argv) -> int``: imported only when it is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:]))
    from asyndm_ext.embedded.cli import main as draw

    return draw(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
