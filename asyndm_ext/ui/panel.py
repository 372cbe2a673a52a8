"""The AsynDM accordion: its controls, made from the table of settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from asyndm_ext.prompt import automatic_objects
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


@dataclass(frozen=True)
class PromptSource:
    """The prompt on the host's page.

    Attributes:
        controls: what it is written with: the text box, a dropdown of styles.
        read: the prompt as a job would have it, given the controls' values.
        find: the objects that a job would find in it; a ValueError of it is shown in their place.
        places: given the prompt, how often a job would find an object in it.
    """

    controls: tuple[Any, ...]
    read: Callable[..., str]
    find: Callable[[str], Sequence[str]] = automatic_objects
    places: chips.Places = chips.places_in_text


def build(
    input_accordion: Callable[..., AbstractContextManager[Any]],
    elem_id: Callable[[str], str],
    prompt: PromptSource | None = None,
    *,
    is_open: bool = False,
    without: Collection[str] = (),
    helps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Draw the panel.

    Args:
        input_accordion: the host's ``InputAccordion``, which is the enable switch itself.
        elem_id: the host's namer of elements.
        prompt: where the prompt stands; without it there are no chips.
        is_open: the enable switch as the page begins.
        without: settings that mean nothing to the host; they get no control.
        helps: what stands below a control, where the host needs other words than the table of settings has.

    Returns:
        The controls by their names, in the order of :class:`~asyndm_ext.settings.Settings`.
    """
    specs = {spec.name: replace(spec, help=(helps or {}).get(spec.name, spec.help)) for spec in FIELDS}
    controls: dict[str, Any] = {}

    def draw(*names: str) -> None:
        for name in names:
            controls[name] = _control(specs[name], elem_id)

    def draw_rows(rows: tuple[tuple[str, ...], ...]) -> None:
        for row in rows:
            names = [name for name in row if name not in without]
            if names:
                with gr.Row():
                    draw(*names)

    with input_accordion(is_open, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        controls["enabled"] = enabled
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
        # Pressed by the page; a button that gradio itself hides is not on every version's page.
        find = gr.Button("Find objects", elem_id=elem_id("find"), elem_classes=["asyndm-hidden"])
    _follow_the_sliders(controls, elem_id(""))
    if prompt is not None:
        _follow_the_prompt(controls, prompt, (find, line), elem_id(""))
    return {name: controls[name] for name in NAMES if name in controls}


def infotext_fields(controls: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Pairs (control, how to read it from an infotext) for the WebUI's pasting."""
    return [(control, pasted(name)) for name, control in controls.items()]


def _follow_the_sliders(controls: Mapping[str, Any], prefix: str) -> None:
    shown = [controls[name] for name in CURVE]
    for control in shown:
        _on_the_page(control.change, f"(strength, curve) => asyndm.plot('{prefix}', strength, curve)", shown)


def _follow_the_prompt(controls: Mapping[str, Any], prompt: PromptSource, finder: tuple[Any, Any], prefix: str) -> None:
    """Look for objects a moment after the last change; the page waits, and only while the panel is open."""
    find, line = finder
    own = [controls["objects"], controls["region"]]
    for changed in (controls["enabled"], *prompt.controls, *own):
        _on_the_page(changed.change, f"() => asyndm.look('{prefix}')", [])

    def found(objects: str, region: str, *written: Any) -> str:
        return chips.html(prompt.read(*written), objects or "", region, prompt.find, prompt.places)

    find.click(fn=found, inputs=[*own, *prompt.controls], outputs=[line], show_progress="hidden", queue=False)


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
