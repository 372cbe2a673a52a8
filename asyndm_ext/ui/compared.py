"""Below the gallery: each picture of a job that is compared, and its plain one, with a slider between them.

The page fills it in (javascript/asyndm_compare.js) from the gallery's pictures and their infotexts, so nothing is sent
twice and no picture is kept here.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from asyndm_ext.ui import slider

# What gradio calls the JavaScript of an event.
_SCRIPT = "_js" if gr.__version__.startswith("3.") else "js"

TITLES = ("Without AsynDM", "With AsynDM")


def html() -> str:
    """The view, empty; the style sheet hides it until it is filled."""
    return (
        '<section class="asyndm-compared" aria-label="With AsynDM and without"><div class="asyndm-compared-head">'
        '<span class="asyndm-pairs"><button type="button" data-by="-1" aria-label="Previous pair">‹</button>'
        '<output></output><button type="button" data-by="1" aria-label="Next pair">›</button></span>'
        '<span class="asyndm-differ" role="status"><span>Pixels that differ visibly:</span> <output></output></span>'
        f"</div>{slider.html('', '', TITLES, TITLES, None)}"
        '<p class="asyndm-same">The two look the same. A higher Strength lets them differ more.</p></section>'
    )


def place(component: Any, elem_id: str | None, tab: str) -> None:
    """Called after each component of a WebUI's page: draws what belongs behind the gallery and the infotexts of its
    pictures.

    Args:
        component, elem_id: the WebUI's.
        tab: "txt2img" or "img2img".
    """
    if elem_id == f"{tab}_gallery":
        gr.HTML(html(), elem_id=f"asyndm_compared_{tab}", elem_classes=["asyndm-compared-place"])
    elif elem_id == f"generation_info_{tab}":
        read = gr.Button("Compare", elem_id=f"asyndm_compare_{tab}", elem_classes=["asyndm-hidden"])
        script = f"(info) => asyndmCompare.show('{tab}', info)"
        read.click(fn=None, inputs=[component], outputs=[], show_progress="hidden", queue=False, **{_SCRIPT: script})
