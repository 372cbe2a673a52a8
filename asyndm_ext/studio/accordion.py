"""The WebUI's ``InputAccordion`` for a page without a WebUI: open is on, closed is off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr


class InputAccordion:
    """Called as the WebUI's own is.

    Attributes:
        fold: what has been drawn last; a page that switches the panel itself opens or closes it along with the check
            box.
    """

    def __init__(self) -> None:
        self.fold: Any = None

    @contextmanager
    def __call__(self, value: bool, label: str, elem_id: str) -> Iterator[Any]:
        """Draws the accordion; what is drawn within it goes inside. Gives the check box that follows it."""
        checkbox = gr.Checkbox(value, label=label, elem_id=f"{elem_id}-checkbox", elem_classes=["asyndm-hidden"])
        with gr.Accordion(label, open=value, elem_id=elem_id, elem_classes=["studio-switch"]) as self.fold:
            yield checkbox
        for event, state in ((self.fold.expand, "true"), (self.fold.collapse, "false")):
            event(fn=None, js=f"() => {state}", inputs=[], outputs=[checkbox], show_progress="hidden", queue=False)
