"""``asyndm studio``: starts the page and says where it is."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyndm_ext.commands import frame

if TYPE_CHECKING:
    from asyndm_ext.world.judge import Judge

_OLDEST = (5, 50)
DEFAULT_PORT = 7870  # beside a WebUI's 7860


def build_parser() -> frame.Parser:
    parser = frame.Parser(
        "asyndm studio",
        "Open a page on which the embedded model draws a prompt on three clocks, with the panel that the"
        " WebUI's extension has: regions and clocks can be looked at step by step.",
        "asyndm studio --port 8000",
    )
    add = parser.add_argument
    add("--port", type=_port, default=DEFAULT_PORT, metavar="N", help="of the page; 0 takes a free one (%(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (%(default)s: this machine only)"
    )
    where.add_argument("--listen", action="store_const", const="0.0.0.0", dest="host", help="listen to the network")
    add("--no-browser", action="store_true", help="do not open a browser window")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until Ctrl+C; returns the exit code."""
    return frame.run(build_parser(), argv, _serve, extra="studio", interrupted="ended")


def _serve(options: argparse.Namespace) -> int:
    import gradio

    if _version(gradio.__version__) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        print(
            f"asyndm studio: gradio {gradio.__version__} is older than {oldest};"
            " pip install -U 'asyndm-webui[studio]' brings a newer one",
            file=sys.stderr,
        )
        return 1
    from asyndm_ext.studio.engine import Engine
    from asyndm_ext.studio.server import Server
    from asyndm_ext.world.model import load_world

    server = Server(Engine(load_world(), _judge()))
    try:
        url = server.start(options.host, options.port, browser=not options.no_browser)
    except OSError as error:
        print(f"asyndm studio: {error}; another port can be chosen with --port", file=sys.stderr)
        return 1
    print(f"asyndm studio: {url} (Ctrl+C ends it)", flush=True)
    server.wait()
    return 0


def _judge() -> Judge | None:
    """None, and a line about it, beside a model that somebody has trained without one."""
    from asyndm_ext.world.judge import load_judge

    try:
        return load_judge()
    except FileNotFoundError as error:
        print(f"asyndm studio: the pictures are not judged: {error}", file=sys.stderr)
        return None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write a number from 0 to 65535")
    return int(text)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
