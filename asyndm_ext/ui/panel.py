"""The AsynDM accordion: its controls, made from the table of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from asyndm_ext.settings import FIELDS, Field
from asyndm_ext.ui import chips, curve_plot, mask_control
from asyndm_ext.ui.infotext import pasted

CURVE = ("strength", "curve")
REGION = (("region", "threshold"),)
ADVANCED = (
    ("show", "save_shown"),
    ("mask_invert", "soft", "adetailer"),
    ("mask_source", "hires"),
    ("smoothing", "hold_after"),
    ("min_area", "max_area"),
    ("start", "end"),
)
"""Names of settings: those beside the plot, and rows. The objects stand above, the mask between the rows."""

NAMES = ("enabled", *(spec.name for spec in FIELDS))
"""Of all controls, in the order of :class:`~asyndm_ext.settings.Settings`."""

# What gradio calls the JavaScript of an event.
_SCRIPT = "_js" if gr.__version__.startswith("3.") else "js"


def build(
    input_accordion: type,
    elem_id: Callable[[str], str],
    prompt: tuple[Any, Any] | None = None,
    with_styles: Callable[[str, list[str]], str] | None = None,
) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Draw the panel.

    Args:
        input_accordion: the host's ``InputAccordion``, which is the enable switch itself.
        elem_id: the script's namer of elements.
        prompt: the tab's text box with the prompt and its dropdown of styles; without them there are no chips.
        with_styles: a prompt with styles, given their names, as a job would have it.

    Returns:
        The controls in the order of :class:`~asyndm_ext.settings.Settings`, and the pairs (control, how to
        read it from an infotext) for pasting.
    """
    specs = {spec.name: spec for spec in FIELDS}
    controls: dict[str, Any] = {}

    def draw(*names: str) -> None:
        for name in names:
            controls[name] = _control(specs[name], elem_id)

    def draw_rows(rows: tuple[tuple[str, ...], ...]) -> None:
        for names in rows:
            with gr.Row():
                draw(*names)

    with input_accordion(False, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        draw("objects")
        line = gr.HTML(chips.html("", "", specs["region"].default), elem_id=elem_id("chips"))
        with gr.Row(elem_id=elem_id("clock")):
            with gr.Column(scale=3, min_width=220):
                draw(*CURVE)
            with gr.Column(scale=2, min_width=180):
                gr.HTML(curve_plot.html(elem_id("plot")))
        draw_rows(REGION)
        controls["mask"] = mask_control.build(specs["mask"], elem_id)
        with gr.Accordion("Advanced", open=False, elem_id=elem_id("advanced")):
            draw_rows(ADVANCED)
        find = gr.Button("Find objects", visible=False, elem_id=elem_id("find"))
    _follow_the_sliders(controls, elem_id(""))
    if prompt is not None and with_styles is not None:
        _follow_the_prompt(enabled, controls, prompt, with_styles, (find, line), elem_id(""))
    ordered = [enabled, *(controls[spec.name] for spec in FIELDS)]
    return ordered, [(control, pasted(name)) for control, name in zip(ordered, NAMES, strict=True)]


def _follow_the_sliders(controls: Mapping[str, Any], prefix: str) -> None:
    shown = [controls[name] for name in CURVE]
    for control in shown:
        _on_the_page(control.change, f"(strength, curve) => asyndm.plot('{prefix}', strength, curve)", shown)


def _follow_the_prompt(
    enabled: Any,
    controls: Mapping[str, Any],
    prompt: tuple[Any, Any],
    with_styles: Callable[[str, list[str]], str],
    finder: tuple[Any, Any],
    prefix: str,
) -> None:
    """Look for objects a moment after the last change; the page waits, and only while the panel is open."""
    find, line = finder
    text, styles = prompt
    for changed in (enabled, text, styles, controls["objects"], controls["region"]):
        _on_the_page(changed.change, f"() => asyndm.look('{prefix}')", [])

    def found(text: str, styles: list[str] | None, objects: str, region: str) -> str:
        return chips.html(with_styles(text or "", styles or []), objects or "", region)

    find.click(
        fn=found,
        inputs=[text, styles, controls["objects"], controls["region"]],
        outputs=[line],
        show_progress="hidden",
        queue=False,
    )


def _on_the_page(event: Any, script: str, inputs: list[Any]) -> None:
    """An event that only the page sees."""
    event(fn=None, inputs=inputs, outputs=[], show_progress="hidden", queue=False, **{_SCRIPT: script})


def _control(spec: Field, elem_id: Callable[[str], str]) -> Any:
    common: dict[str, Any] = {"label": spec.label, "info": spec.help, "elem_id": elem_id(spec.name)}
    if not spec.is_switch:
        common["min_width"] = 200  # narrower than two of these, and each has a row of its own
    if spec.choices:
        return gr.Dropdown(choices=list(spec.choices), value=spec.default, **common)
    if spec.limits is not None:
        low, high = spec.limits
        return gr.Slider(minimum=low, maximum=high, step=spec.step, value=spec.default, **common)
    if spec.is_switch:
        return gr.Checkbox(value=spec.default, **common)
    return gr.Textbox(value=", ".join(spec.default), placeholder="found automatically", lines=1, **common)
