"""The page: its layout, and which function of :mod:`.session` each press calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from asyndm_ext.embedded.job import COUNTED_SOLVERS
from asyndm_ext.embedded.limits import GUIDANCE, MAX_SIDE, MAX_STEPS, SCHEDULERS, SIDE_STEP
from asyndm_ext.studio import messages, pictures
from asyndm_ext.studio.accordion import InputAccordion
from asyndm_ext.studio.engine import Engine
from asyndm_ext.studio.link import MOST_GUIDANCE
from asyndm_ext.studio.request import DRAWING, WITHOUT, find_objects, random_seed
from asyndm_ext.studio.runs import Desk
from asyndm_ext.studio.session import OUTPUTS, Studio
from asyndm_ext.ui import panel

EXAMPLES = (
    "a shark riding a bike",
    "a penguin on a sled in the snow",
    "a cat in a yellow boat at sunset",
)
"""Something that is hardly ever seen, something usual, and one with a colour and a light."""
HELPS = {
    "mask": "White lags, black does not, and grey lags in between. Paint, on a picture if you like, or upload a black "
    "and white one.",
    "smoothing": "Blurs the attention over this many of its cells before it becomes a mask. A cell is 8 pixels wide.",
}
PREFIX = "asyndm_"
_QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False}


def elem_id(name: str) -> str:
    return PREFIX + name


def build(engine: Engine, **blocks: Any) -> gr.Blocks:
    """The page. ``blocks``: more for gradio's ``Blocks``."""
    with gr.Blocks(title="AsynDM studio", analytics_enabled=False, **blocks) as page:
        gr.HTML(_HEADER, elem_id="studio_header")
        with gr.Row(elem_id="studio_top"):
            with gr.Column(scale=5, min_width=260):
                prompt = gr.Textbox(
                    EXAMPLES[0],
                    label="Prompt",
                    lines=1,
                    max_lines=3,
                    placeholder="an animal, and where it is: two penguins beside a red tent in the forest at night",
                    elem_id="studio_prompt",
                )
            with gr.Column(scale=1, min_width=140, elem_id="studio_buttons"):
                run = gr.Button("Run", variant="primary", elem_id="studio_run")
                interrupt = gr.Button("Interrupt", interactive=False, elem_id="studio_interrupt")
        with gr.Row(elem_id="studio_examples"):
            gr.HTML("<span>Examples, drawn at a click:</span>", elem_id="studio_examples_lead")
            examples = [gr.Button(example, size="sm", elem_classes=["studio-example"]) for example in EXAMPLES]
        gr.HTML(messages.words(), elem_id="studio_words")
        with gr.Row(elem_id="studio_body"):
            with gr.Column(scale=4, min_width=320, elem_id="studio_settings"):
                drawing = _drawing_controls()
                accordion = InputAccordion()
                source = panel.PromptSource((prompt,), lambda text: text or "", find_objects)
                settings = panel.build(accordion, elem_id, source, is_open=True, without=WITHOUT, helps=HELPS)
            with gr.Column(scale=8, min_width=320, elem_id="studio_results"):
                results = _results()
        hidden = _Hidden.build()
        desk = gr.State(Desk())
        dice = drawing.pop("dice")

        studio = Studio(engine, tuple(settings))
        drawn = {"prompt": prompt, **drawing}
        controls = [*(drawn[name] for name in DRAWING), *settings.values()]
        for control in controls:
            _leave_checking_to_the_job(control)
        shown = {
            **results, "run": run, "interrupt": interrupt, "desk": desk, "seed": drawing["seed"], "link": hidden.link,
        }  # fmt: skip
        outputs = [shown[name] for name in OUTPUTS]
        restored = [*controls, accordion.fold, _mask_picture(page)]
        mask, status = settings["mask"], results["status"]

        begun = gr.on([run.click, prompt.submit], studio.begin, [], outputs[:3], **_QUIET)
        ended = begun.then(studio.draw, [desk, *controls], outputs, show_progress="hidden", concurrency_limit=1)
        # In gradio 6 "then" is not called after an error, in gradio 5 it is; settling twice does no harm.
        settled = [
            after(studio.settle, [], outputs[:3], **_QUIET) for after in (begun.failure, ended.then, ended.failure)
        ]
        interrupt.click(studio.interrupt, [], [], queue=False)
        page.unload(studio.leave)
        results["slider"].change(
            studio.step, [desk, results["slider"]], [results["step"]], trigger_mode="always_last", **_QUIET
        )
        dice.click(random_seed, [], [drawing["seed"]], **_QUIET)
        for button, example in zip(examples, EXAMPLES, strict=True):
            script, changed = f"() => studio.example({example!r})", [prompt, settings["objects"]]
            button.click(fn=None, js=script, inputs=[], outputs=changed, queue=False)

        picked = hidden.pick.click(
            studio.pick,
            [desk, hidden.number, mask],
            [*outputs, *restored],
            js="(desk, number, mask) => [desk, studio.picked(), mask]",
            **_QUIET,
        )
        for event in (*settled, picked):
            event.then(fn=None, js="(link) => studio.address(link)", inputs=[hidden.link], outputs=[], queue=False)
        opened = hidden.open.click(
            studio.open,
            [hidden.opened, mask],
            [status, hidden.opened, *restored],
            js="(opened, mask) => [location.hash, mask]",
            **_QUIET,
        )
        opened.then(fn=None, js="(word) => studio.opened(word)", inputs=[hidden.opened], outputs=[], queue=False)
        results["copy"].click(fn=None, js="(link) => studio.copy(link)", inputs=[hidden.link], outputs=[], queue=False)
        saved = results["save"].click(studio.bundle, [desk], [hidden.file, status], **_QUIET)
        saved.then(fn=None, js="(file) => studio.save(file)", inputs=[hidden.file], outputs=[], queue=False)
    return page


_HEADER = (
    '<header class="studio-header"><h1>AsynDM studio</h1>'
    "<p>One prompt and one noise, drawn on three clocks by the little model that comes with AsynDM.</p>"
    '<button type="button" class="studio-theme" aria-label="Light or dark" title="Light or dark"'
    ' onclick="studio.turnTheme()">◐</button></header>'
)
_VIEWS = (
    '<div class="studio-views" role="group" aria-label="How the pictures are shown">'
    '<button type="button" data-view="side" aria-pressed="true">Side by side</button>'
    '<button type="button" data-view="compare" aria-pressed="false">Before and after</button></div>'
)


def _results() -> dict[str, Any]:
    """The right half: what is seen of a run, and what can be done with it."""
    controls: dict[str, Any] = {"status": gr.HTML(messages.idle(), elem_id="studio_status")}
    gr.HTML(_VIEWS, elem_id="studio_views")
    controls["gallery"] = gr.HTML(pictures.blank(), elem_id="studio_gallery")
    with gr.Row(visible=False, elem_id="studio_actions") as controls["actions"]:
        controls["copy"] = gr.Button("Copy link", size="sm", elem_id="studio_copy", min_width=90)
        controls["save"] = gr.Button("Save everything", size="sm", elem_id="studio_save", min_width=90)
    controls["runs"] = gr.HTML("", elem_id="studio_runs")
    with gr.Column(visible=False, elem_id="studio_history") as controls["steps"]:
        controls["slider"] = gr.Slider(1, 2, value=1, step=1, label="Step", interactive=True, elem_id="studio_step")
        controls["step"] = gr.HTML(elem_id="studio_step_view")
    return controls


def _drawing_controls() -> dict[str, Any]:
    """All that a picture needs beside its prompt, and the button that throws a seed ("dice")."""
    controls: dict[str, Any] = {}

    def slider(name: str, low: float, high: float, value: float, by: float, label: str) -> None:
        controls[name] = gr.Slider(
            low, high, value=value, step=by, label=label, elem_id=f"studio_{name}", min_width=140
        )

    def dropdown(name: str, choices: tuple[str, ...], label: str) -> None:
        value = "Euler" if name == "solver" else choices[0]
        controls[name] = gr.Dropdown(list(choices), value=value, label=label, elem_id=f"studio_{name}", min_width=140)

    with gr.Group(elem_id="studio_drawing"):
        with gr.Row():
            dropdown("solver", COUNTED_SOLVERS, "Solver")
            dropdown("scheduler", SCHEDULERS, "Scheduler")
        with gr.Row():
            slider("steps", 1, MAX_STEPS, 20, 1, "Steps")
            slider("guidance", 0, MOST_GUIDANCE, GUIDANCE, 0.5, "Guidance")
        with gr.Row():
            slider("width", SIDE_STEP, MAX_SIDE, 128, SIDE_STEP, "Width")
            slider("height", SIDE_STEP, MAX_SIDE, 128, SIDE_STEP, "Height")
        with gr.Row(elem_id="studio_seed_row"):
            controls["seed"] = gr.Number(1, label="Seed", precision=0, elem_id="studio_seed", min_width=140, scale=4)
            controls["dice"] = gr.Button("New seed", size="sm", scale=1, min_width=90, elem_id="studio_dice")
    return controls


@dataclass(frozen=True)
class _Hidden:
    """What the page's scripts (assets/desk.js) and its functions say to each other.

    Attributes:
        link: the address of the run that is shown.
        number, pick: the run to bring back, and the button that does.
        opened, open: whether an address is to be drawn at once, and the button that reads it.
        file: all of a run, on its way to the disk.
    """

    link: Any
    number: Any
    pick: Any
    opened: Any
    open: Any
    file: Any

    @classmethod
    def build(cls) -> _Hidden:
        def box(name: str) -> Any:
            return gr.Textbox(visible=False, label=name, elem_id=f"studio_{name}")

        # A button that gradio itself hides is not on every version's page.
        def button(name: str) -> Any:
            return gr.Button(name, elem_id=f"studio_{name}", elem_classes=["asyndm-hidden"])

        number = gr.Number(visible=False, label="number", precision=0, elem_id="studio_number")
        return cls(box("link"), number, button("pick"), box("opened"), button("open"), box("file"))


def _leave_checking_to_the_job(control: Any) -> None:
    """gradio refuses a number out of its range before any function of ours is called, and cannot say what is wrong
    with it. The job can."""
    if isinstance(control, (gr.Slider, gr.Number)):
        control.preprocess = lambda payload: payload


def _mask_picture(page: gr.Blocks) -> Any:
    (found,) = [one for one in page.blocks.values() if getattr(one, "elem_id", None) == elem_id("mask_picture")]
    return found
