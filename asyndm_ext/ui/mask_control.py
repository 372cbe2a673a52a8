"""The mask as people give it in the panel: a picture to paint on, kept as text beside it.

Script arguments have to be JSON (they are forwarded to worker nodes, and the API takes the same ones), so the script
sees the text only; the picture's control is a way to write it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import gradio as gr

from asyndm_ext.settings import Field
from asyndm_ext.ui import mask_line, painted


@dataclass(frozen=True)
class MaskControl:
    """What the rest of the panel needs of it.

    Attributes:
        text: hidden, the mask in base64.
        kind: hidden, what the mask is (:data:`painted.Kind`).
        written: events after which the two have been written anew; each is a gradio event listener's ``then``.
    """

    text: Any
    kind: Any
    written: tuple[Callable[..., Any], ...]


def build(spec: Field, elem_id: Callable[[str], str]) -> MaskControl:
    """Draw the picture's control."""
    common = {"label": spec.label, "type": "pil", "image_mode": "RGBA", "elem_id": elem_id("mask_picture")}
    with gr.Accordion("Mask", open=False, elem_id=elem_id("mask_fold")):
        gr.HTML(f'<p class="asyndm-note">{spec.help}</p>')
        if hasattr(gr, "ImageEditor"):  # gradio 4
            editor = gr.ImageEditor(sources=["upload", "clipboard"], brush=gr.Brush(colors=["#ffffff"]), **common)
            changes = [editor.change, editor.clear]
            if not gr.__version__.startswith("4."):
                changes.append(editor.upload)  # later ones call only what is drawn a change
        else:
            # In gradio 3 the page hangs when a sketch inside an accordion listens for "change", and a removed picture
            # says nothing else: the page's script sees it go, and has the control read.
            editor = gr.Image(source="upload", tool="sketch", brush_color="#ffffff", height=320, **common)
            changes = [editor.edit, editor.clear]
        text = gr.Textbox(value="", label=spec.label, visible=False, elem_id=elem_id(spec.name))
        kind = gr.Textbox(value="", label="Kind of mask", visible=False, elem_id=elem_id("mask_kind"))
        again = hidden_button("Read the mask", elem_id("mask_again"))
        whole = hidden_button("Use the picture as it is", elem_id(mask_line.WHOLE))
    for control in (editor, text, kind):
        control.do_not_save_to_config = True
    read: dict[str, Any] = {
        "fn": _read,
        "inputs": [editor, text],
        "outputs": [text, kind],
        "show_progress": "hidden",
    }
    if hasattr(gr, "ImageEditor"):
        # One after the other, and once more for what came meanwhile: or a stroke may be read after the mask is removed.
        listeners = [gr.on([*changes, again.click], trigger_mode="always_last", **read)]
    else:
        listeners = [event(**read) for event in (*changes, again.click)]
    written = [listener.then for listener in listeners]
    listener = whole.click(fn=_read_whole, inputs=[editor], outputs=[text, kind], show_progress="hidden")
    return MaskControl(text, kind, (*written, listener.then))


def hidden_button(label: str, elem_id: str) -> Any:
    """Pressed by the page; a button that gradio itself hides is not on every version's page."""
    return gr.Button(label, elem_id=elem_id, elem_classes=["asyndm-hidden"])


def _read(value: Any, before: str | None) -> tuple[str, ...]:
    return astuple(painted.read(value, before=before or ""))


def _read_whole(value: Any) -> tuple[str, ...]:
    return astuple(painted.read(value, whole=True))
