"""The AsynDM accordion: its controls, made from the table of settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from asyndm_ext.presets import preset
from asyndm_ext.prompt.finder import automatic_objects
from asyndm_ext.settings import FIELDS, Field
from asyndm_ext.ui import chips, curve_plot, mask_control, mask_line, preset_line
from asyndm_ext.ui.infotext import pasted

CURVE = ("strength", "curve")
REGION = (("region", "threshold"),)
"""Names of settings: those beside the plot, and rows. The objects stand above, the mask below."""
ADVANCED = (
    ("In which order", ("order",)),
    ("Pictures of what was done", ("show", "save_shown")),
    ("Which pixels are an object's", ("mask_source", "soft", "smoothing", "min_area", "max_area")),
    ("The mask", ("mask_invert",)),
    ("When pixels lag", ("start", "end", "hold_after")),
    ("In which passes", ("hires", "adetailer")),
)
"""Headings, and names of settings below each."""

NAMES = ("enabled", *(spec.name for spec in FIELDS))
"""Of all controls, in the order of :class:`~asyndm_ext.settings.Settings`."""

# What gradio calls the JavaScript of an event.
_SCRIPT = "_js" if gr.__version__.startswith("3.") else "js"
# What it does with an event that comes while the last one is not answered: gradio 3 sends it too, later ones drop it.
_LATEST = {} if gr.__version__.startswith("3.") else {"trigger_mode": "always_last"}


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
    inpaint: bool = False,
) -> dict[str, Any]:
    """Draw the panel.

    Args:
        input_accordion: the host's ``InputAccordion``, which is the enable switch itself.
        elem_id: the host's namer of elements.
        prompt: where the prompt stands; without it there are no chips.
        is_open: the enable switch as the page begins.
        without: settings that mean nothing to the host; they get no control.
        helps: what stands below a control, where the host needs other words than the table of settings has.
        inpaint: whether the host's jobs may have an inpaint mask.

    Returns:
        The controls by their names, in the order of :class:`~asyndm_ext.settings.Settings`.
    """
    specs = {spec.name: replace(spec, help=(helps or {}).get(spec.name, spec.help)) for spec in FIELDS}
    controls: dict[str, Any] = {}

    def draw(*names: str) -> None:
        for name in names:
            if name not in without:
                controls[name] = _field(specs[name], elem_id)

    def draw_rows(rows: tuple[tuple[str, ...], ...]) -> None:
        for row in rows:
            with gr.Row(elem_classes=_classes(*(specs[name] for name in row))):
                draw(*row)

    def draw_groups(groups: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        for heading, group in groups:
            names = [name for name in group if name not in without]
            if names:
                with gr.Column(elem_classes=["asyndm-group", *_classes(*(specs[name] for name in names))]):
                    gr.HTML(f'<h3 class="asyndm-heading">{heading}</h3>')
                    draw(*names)

    with (
        input_accordion(is_open, label="AsynDM", elem_id=elem_id("enabled")) as enabled,
        gr.Column(elem_classes=["asyndm-panel"]),
    ):
        controls["enabled"] = enabled
        presets = preset_line.offered(without)
        gr.HTML(preset_line.html(presets), elem_id=elem_id("presets"))
        draw("objects")
        line = gr.HTML(chips.html("", "", specs["region"].default), elem_id=elem_id("chips"))
        with gr.Row(elem_id=elem_id("clock")):
            with gr.Column(scale=3, min_width=220):
                draw(*CURVE)
            with gr.Column(scale=2, min_width=180):
                draw("compare_plain")
                gr.HTML(curve_plot.html(elem_id("plot")))
        draw_rows(REGION)
        mask_says = gr.HTML("", elem_id=elem_id("mask_line"))
        mask = mask_control.build(specs["mask"], elem_id)
        controls["mask"] = mask.text
        with (
            gr.Accordion("Advanced", open=False, elem_id=elem_id("advanced")),
            gr.Column(elem_classes=["asyndm-groups"]),
        ):
            draw_groups(ADVANCED)
        find = mask_control.hidden_button("Find objects", elem_id("find"))
        switches = {
            region: mask_control.hidden_button(region, elem_id(mask_line.switch_to(region)))
            for region in mask_line.REGIONS_WITH_MASK
        }
        choosers = {
            preset.name: mask_control.hidden_button(preset.name, elem_id(preset_line.button(preset)))
            for preset in presets
        }
    prefix = elem_id("")
    _follow_the_presets(controls, choosers, prefix)
    _follow_the_sliders(controls, prefix)
    _follow_the_region(controls["region"], switches, prefix)
    _keep_the_lines(controls, prompt, mask, (find, line, mask_says), prefix, inpaint)
    return {name: controls[name] for name in NAMES if name in controls}


def infotext_fields(controls: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Pairs (control, how to read it from an infotext) for the WebUI's pasting."""
    return [(control, pasted(name)) for name, control in controls.items()]


def _follow_the_presets(controls: Mapping[str, Any], choosers: Mapping[str, Any], prefix: str) -> None:
    """A press sets the controls that presets set; whenever these change, the page lights the preset that they equal."""
    own = [controls[name] for name in preset_line.GOVERNED if name in controls]
    for name, chooser in choosers.items():
        values = json.dumps([preset(name).settings[one] for one in preset_line.GOVERNED])
        _on_the_page(chooser.click, f"() => {values}", [], own)
    for control in own if choosers else ():
        names = ", ".join(preset_line.GOVERNED)
        _on_the_page(control.change, f"({names}) => asyndm.mark('{prefix}', {{{names}}})", own)


def _follow_the_sliders(controls: Mapping[str, Any], prefix: str) -> None:
    shown = [controls[name] for name in CURVE]
    for control in shown:
        _on_the_page(control.change, f"(strength, curve) => asyndm.plot('{prefix}', strength, curve)", shown)


def _follow_the_region(region: Any, switches: Mapping[str, Any], prefix: str) -> None:
    """The controls that the region does not use are not shown, and a press on a switch chooses another region."""
    _on_the_page(region.change, f"(region) => asyndm.show('{prefix}', region)", [region])
    for other, switch in switches.items():
        _on_the_page(switch.click, f"() => {other!r}", [], [region])


def _keep_the_lines(
    controls: Mapping[str, Any],
    prompt: PromptSource | None,
    mask: mask_control.MaskControl,
    finder: tuple[Any, Any, Any],
    prefix: str,
    inpaint: bool,
) -> None:
    """The objects and what is said of the mask, anew a moment after the last change; the page waits, and only while the
    panel is open.

    Args:
        finder: the button that the page presses, the objects' line and the mask's.
    """
    find, objects_line, mask_says = finder
    own = [*(controls[name] for name in ("objects", "region", "order", "mask_source")), mask.kind]
    written = list(prompt.controls) if prompt else []
    for event in (*(control.change for control in (controls["enabled"], *own[:4], *written)), *mask.written):
        _on_the_page(event, f"() => asyndm.look('{prefix}')", [])

    def found(objects: str, region: str, order: str, source: str, kind: str, *written: Any) -> tuple[Any, str]:
        said = mask_line.html(region, kind or "", inpaint)
        if prompt is None:
            return gr.update(), said
        text = prompt.read(*written)
        return chips.html(text, objects or "", region, prompt.find, prompt.places, order, source), said

    find.click(
        fn=found,
        inputs=[*own, *written],
        outputs=[objects_line, mask_says],
        show_progress="hidden",
        queue=False,
        **_LATEST,
    )


def _on_the_page(event: Any, script: str, inputs: list[Any], outputs: Sequence[Any] = ()) -> None:
    """An event that only the page sees."""
    event(fn=None, inputs=inputs, outputs=[*outputs], show_progress="hidden", queue=False, **{_SCRIPT: script})


def _classes(*specs: Field) -> list[str]:
    """By these the page hides what a region does not use; a row goes where all of it does."""
    parts = {spec.part for spec in specs}
    return [f"asyndm-of-{part}" for part in parts if part and len(parts) == 1]


def _field(spec: Field, elem_id: Callable[[str], str]) -> Any:
    """A control with its help below it, not within its label, where gradio has it: a screen reader would read out all
    of it as the control's name. Narrower than two of these, and each has a row of its own."""
    with gr.Column(min_width=200, elem_classes=["asyndm-field", *_classes(spec)]):
        control = _control(spec, elem_id)
        gr.HTML(f'<p class="asyndm-help" id="{elem_id(spec.name)}_help">{escape(spec.help, quote=False)}</p>')
    return control


def _control(spec: Field, elem_id: Callable[[str], str]) -> Any:
    common: dict[str, Any] = {"label": spec.label, "elem_id": elem_id(spec.name)}
    if spec.choices:
        return gr.Dropdown(choices=list(spec.choices), value=spec.default, **common)
    if spec.limits is not None:
        low, high = spec.limits
        return gr.Slider(minimum=low, maximum=high, step=spec.step, value=spec.default, **common)
    if spec.is_switch:
        return gr.Checkbox(value=spec.default, **common)
    return gr.Textbox(value=", ".join(spec.default), placeholder="found automatically", lines=1, **common)
