"""The AsynDM accordion: its controls, made from the table of settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from asyndm_ext.settings import FIELDS, Field, Settings
from asyndm_ext.ui.infotext import pasted


def build(input_accordion: type, elem_id: Callable[[str], str]) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Draw the panel.

    Args:
        input_accordion: the host's ``InputAccordion``, which is the enable switch itself.
        elem_id: the script's namer of elements.

    Returns:
        The controls in the order of :class:`~asyndm_ext.settings.Settings`, and the pairs (control, how to
        read it from an infotext) for pasting.
    """
    defaults = Settings()
    with input_accordion(False, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        gr.HTML('<p class="asyndm-note">The objects of the prompt are drawn later than what surrounds them.</p>')
        controls = {"objects": _control(FIELDS[0], defaults, elem_id)}
        for pair in (("strength", "curve"), ("threshold", "region")):
            with gr.Row():
                for spec in (field for field in FIELDS if field.name in pair):
                    controls[spec.name] = _control(spec, defaults, elem_id)
    ordered = [controls[spec.name] for spec in FIELDS]
    fields = [(enabled, pasted("enabled"))] + [(controls[spec.name], pasted(spec.name)) for spec in FIELDS]
    return [enabled, *ordered], fields


def _control(spec: Field, defaults: Settings, elem_id: Callable[[str], str]) -> Any:
    value = getattr(defaults, spec.name)
    common = {"label": spec.label, "info": spec.help, "elem_id": elem_id(spec.name)}
    if spec.choices:
        return gr.Dropdown(choices=list(spec.choices), value=value, **common)
    if spec.limits is not None:
        low, high = spec.limits
        return gr.Slider(minimum=low, maximum=high, step=spec.step, value=value, **common)
    return gr.Textbox(value=", ".join(value), placeholder="found automatically", lines=1, **common)
