"""The page's server: gradio's, with what differs between its versions in one place."""

from __future__ import annotations

import inspect
import socket
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from asyndm_ext.studio import page
from asyndm_ext.studio.assets import panel_text_of, text_of
from asyndm_ext.studio.engine import Engine

_CHANCES = 5  # to find a free port
_POLICY = (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:")


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
        for chances in reversed(range(_CHANCES)):
            try:
                self.blocks.launch(
                    server_name=host,
                    server_port=port or _free_port(host),
                    inbrowser=browser,
                    prevent_thread_lock=True,
                    quiet=True,
                    show_error=True,
                    app_kwargs={"middleware": [Middleware(_OwnServerOnly)]},
                    **self._launch,
                )
                break
            except OSError:  # a free port can be taken before gradio comes to it
                if port or not chances:
                    raise
        return str(self.blocks.local_url)

    def wait(self) -> None:
        """Until Ctrl+C."""
        self.blocks.block_thread()

    def stop(self) -> None:
        self.blocks.close(verbose=False)


class _OwnServerOnly:
    """Tells the browser to load nothing from another server, which gradio's page does in some versions.

    Args:
        app: an ASGI application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _POLICY]
            await send(message)

        await self._app(scope, receive, sent)


def theme() -> Any:
    """No font from another server; the colours of the drawings. Text has 4.5 times the light of what is behind it, or
    the other way round."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    quiet, quiet_dark = "*neutral_600", "*neutral_300"
    return base.set(
        body_text_color_subdued=quiet,
        body_text_color_subdued_dark=quiet_dark,
        block_info_text_color=quiet,
        block_info_text_color_dark=quiet_dark,
        block_label_text_color=quiet,
        block_label_text_color_dark=quiet_dark,
        input_placeholder_color=quiet,
        input_placeholder_color_dark=quiet_dark,
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )


def head() -> str:
    """The panel's script and style as the WebUI loads them, after what they expect of a WebUI's page."""
    panel_script, panel_style = panel_text_of("javascript/asyndm.js"), panel_text_of("style.css")
    scripts = (text_of("page.js"), panel_script, text_of("viewer.js"), text_of("desk.js"))
    styles = (panel_style, text_of("page.css"), text_of("results.css"), text_of("viewer.css"))
    return "".join([f"<script>{text}</script>" for text in scripts] + [f"<style>{text}</style>" for text in styles])


def _free_port(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])
