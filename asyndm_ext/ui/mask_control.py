"""The mask as people give it in the panel: a picture to paint on, kept as text beside it.

Script arguments have to be JSON (they are forwarded to worker nodes, and the API takes the same ones), so the script
sees the text only; the picture's control is a way to write it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from asyndm_ext.settings import Field
from asyndm_ext.ui.painted import written


def build(spec: Field, elem_id: Callable[[str], str]) -> Any:
    """Draw the picture's control; returns the hidden text that holds the mask in base64."""
    common = {"label": spec.label, "type": "pil", "image_mode": "RGBA", "elem_id": elem_id("mask_picture")}
    with gr.Accordion("Mask", open=False, elem_id=elem_id("mask_fold")):
        gr.HTML(f'<p class="asyndm-note">{spec.help}</p>')
        if hasattr(gr, "ImageEditor"):  # gradio 4
            editor = gr.ImageEditor(sources=["upload", "clipboard"], brush=gr.Brush(colors=["#ffffff"]), **common)
            changes = [editor.change]
        else:
            # In gradio 3 the page hangs when a sketch inside an accordion listens for "change".
            editor = gr.Image(source="upload", tool="sketch", brush_color="#ffffff", height=320, **common)
            changes = [editor.edit, editor.clear]
        text = gr.Textbox(value="", label=spec.label, visible=False, elem_id=elem_id(spec.name))
    for control in (editor, text):
        control.do_not_save_to_config = True
    for changed in changes:
        changed(fn=written, inputs=[editor], outputs=[text], show_progress=False)
    return text
