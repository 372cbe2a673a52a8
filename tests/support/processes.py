"""The ``asyndm`` command in a process of its own, where a test needs one: for signals, and for what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
START = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["asyndm", *{arguments!r}]
from asyndm_ext.commands.main import main
try:
    code = main()
except SystemExit as left:
    code = left.code
if {show!r}:
    print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """For such a process and those that it starts: without torchvision (see ``tests/conftest.py``), on one thread."""
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['torchvision'] = None\n")
    path = [str(REPOSITORY), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", **more}


def start(
    folder: Path, arguments: Sequence[str], at: str = "", show: bool = False, **more: str
) -> subprocess.Popen[str]:
    """The command, in a process group of its own, with pipes.

    Args:
        folder: it runs there.
        arguments: of the command.
        at: Ctrl+C comes while this module is imported.
        show: print the names of all modules at the end.
        more: environment variables.
    """
    return subprocess.Popen(
        [sys.executable, "-c", START.format(at=at, arguments=list(arguments), show=show)],
        cwd=folder,
        env=environment(folder.parent / f"{folder.name}-site", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def modules(output: str) -> set[str]:
    """What ``show`` printed."""
    return set(json.loads(output.splitlines()[-1]))
