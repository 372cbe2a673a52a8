"""The page's server: gradio's, with what differs between its versions in one place."""

from __future__ import annotations

import inspect
import socket
import sysconfig
from pathlib import Path
from typing import Any

import gradio as gr

import asyndm_ext
from asyndm_ext.studio import page
from asyndm_ext.studio.engine import Engine

_HERE = Path(__file__).parent
_EXTENSION = Path(asyndm_ext.__file__).parents[1]
_INSTALLED = Path(sysconfig.get_path("data"), "share", "asyndm-webui")
"""Where the panel's script and style lie: in the extension's folder, or where an installed package has them."""


class Server:
    """The page on an engine; see :meth:`start`."""

    def __init__(self, engine: Engine) -> None:
        look = {"theme": theme(), "head": head()}
        # From gradio 6 on the look belongs to the launch.
        of_launch = inspect.signature(gr.Blocks.launch).parameters
        self._launch: dict[str, Any] = {name: value for name, value in look.items() if name in of_launch}
        self._launch |= {name: False for name in ("ssr_mode", "share") if name in of_launch}
        self.blocks = page.build(engine, **{name: value for name, value in look.items() if name not in of_launch})

    def start(self, host: str, port: int, browser: bool) -> str:
        """Listen, in a thread of the server's own; returns the page's address.

        Raises:
            OSError: the port is taken.
        """
        self.blocks.launch(
            server_name=host,
            server_port=port or _free_port(host),
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            **self._launch,
        )
        return str(self.blocks.local_url)

    def wait(self) -> None:
        """Until Ctrl+C."""
        self.blocks.block_thread()

    def stop(self) -> None:
        self.blocks.close(verbose=False)


def theme() -> Any:
    """No font from another server; the colours of the drawings."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )


def head() -> str:
    """The panel's script and style as the WebUI loads them, after what they expect of a WebUI's page."""
    scripts = (_HERE / "page.js", _asset("javascript/asyndm.js"))
    styles = (_asset("style.css"), _HERE / "page.css")
    return "".join(
        [f"<script>{path.read_text(encoding='utf-8')}</script>" for path in scripts]
        + [f"<style>{path.read_text(encoding='utf-8')}</style>" for path in styles]
    )


def _asset(name: str) -> Path:
    """A file that the WebUI loads as well.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for path in (_EXTENSION / name, _INSTALLED / Path(name).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is neither in {_EXTENSION} nor in {_INSTALLED}")


def _free_port(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])
