"""The AsynDM accordion: its controls, made from the table of settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from asyndm_ext.settings import FIELDS, Field
from asyndm_ext.ui import mask_control
from asyndm_ext.ui.infotext import pasted

MAIN = (("objects",), ("strength", "curve"), ("threshold", "region"))
ADVANCED = (
    ("mask_invert", "soft", "adetailer"),
    ("mask_source", "hires"),
    ("smoothing", "hold_after"),
    ("min_area", "max_area"),
    ("start", "end"),
)
"""Rows of the panel, by names of settings; the mask has a place of its own between the two."""


def build(input_accordion: type, elem_id: Callable[[str], str]) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Draw the panel.

    Args:
        input_accordion: the host's ``InputAccordion``, which is the enable switch itself.
        elem_id: the script's namer of elements.

    Returns:
        The controls in the order of :class:`~asyndm_ext.settings.Settings`, and the pairs (control, how to
        read it from an infotext) for pasting.
    """
    specs = {spec.name: spec for spec in FIELDS}
    controls: dict[str, Any] = {}

    def draw(rows: tuple[tuple[str, ...], ...]) -> None:
        for names in rows:
            with gr.Row():
                for name in names:
                    controls[name] = _control(specs[name], elem_id)

    with input_accordion(False, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        gr.HTML('<p class="asyndm-note">The objects of the prompt are drawn later than what surrounds them.</p>')
        draw(MAIN)
        controls["mask"] = mask_control.build(specs["mask"], elem_id)
        with gr.Accordion("Advanced", open=False, elem_id=elem_id("advanced")):
            draw(ADVANCED)
    ordered = [controls[spec.name] for spec in FIELDS]
    fields = [(enabled, pasted("enabled"))] + [(controls[spec.name], pasted(spec.name)) for spec in FIELDS]
    return [enabled, *ordered], fields


def _control(spec: Field, elem_id: Callable[[str], str]) -> Any:
    common = {"label": spec.label, "info": spec.help, "elem_id": elem_id(spec.name)}
    if spec.choices:
        return gr.Dropdown(choices=list(spec.choices), value=spec.default, **common)
    if spec.limits is not None:
        low, high = spec.limits
        return gr.Slider(minimum=low, maximum=high, step=spec.step, value=spec.default, **common)
    if spec.is_switch:
        return gr.Checkbox(value=spec.default, **common)
    return gr.Textbox(value=", ".join(spec.default), placeholder="found automatically", lines=1, **common)
