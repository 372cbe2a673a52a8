"""The page: its layout, and what happens when something is pressed."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr

from asyndm_ext.embedded.sampling import COUNTED_SOLVERS, GUIDANCE, MAX_SIDE, MAX_STEPS, SCHEDULERS, SIDE_STEP
from asyndm_ext.studio import views
from asyndm_ext.studio.accordion import input_accordion
from asyndm_ext.studio.engine import Engine, Interrupted, Outcome
from asyndm_ext.studio.request import WITHOUT, find_objects, job_from, random_seed
from asyndm_ext.ui import panel

EXAMPLES = (
    "a red circle and a blue square",
    "a yellow star to the left of a green triangle",
    "two blue circles and a red square on a white background",
)
HELPS = {
    "mask": "White is slow, grey in between. Paint, on a picture if you like, or upload a black and white one.",
    "smoothing": "Smooths the attention over so many of its cells (16 pixels wide) before it becomes a mask.",
}
PREFIX = "asyndm_"
DRAWING = ("prompt", "seed", "steps", "solver", "scheduler", "guidance", "width", "height")
"""Names of the controls that are not the panel's, as in :class:`~asyndm_ext.embedded.sampling.Job`."""


def elem_id(name: str) -> str:
    return PREFIX + name


class Studio:
    """What the page does. Without any layout, so that it can be called as the page calls it.

    Args:
        engine: draws.
        names: of the panel's controls, in the order of their values.
    """

    def __init__(self, engine: Engine, names: tuple[str, ...]) -> None:
        self._engine = engine
        self._names = names
        self._stops: dict[str | None, threading.Event] = {}

    def draw(self, request: gr.Request, before: Outcome | None, *values: Any) -> Iterator[list[Any]]:
        """Draws; yields the values of the outputs that :func:`build` connects.

        Args:
            request: tells whose window it is.
            before: what the window has shown until now, and shows again when nothing comes of this.
            values: of :data:`DRAWING` and of the panel.
        """
        stop = self._stops[request.session_hash] = threading.Event()
        drawing = dict(zip(DRAWING, values[: len(DRAWING)], strict=True))
        settings = dict(zip(self._names, values[len(DRAWING) :], strict=True))
        try:
            job, variants = job_from(drawing, settings)
            for news in self._engine.draw(job, variants, stop):
                if isinstance(news, Outcome):
                    yield self._shown(views.finished(news), news)
                else:
                    yield _outputs(views.working(news), views.previews(job, news), steps=_hidden(), running=True)
        except Interrupted:
            yield self._shown(views.interrupted(), before)
        except ValueError as error:
            yield self._shown(views.wrong(str(error)), before)
        except Exception as error:
            traceback.print_exc()
            yield self._shown(views.wrong(f"this went wrong: {error} (more about it is in the console)"), before)
        finally:
            self._stops.pop(request.session_hash, None)

    def _shown(self, status: str, outcome: Outcome | None) -> list[Any]:
        """A status, and what there is to see."""
        if outcome is None:
            return _outputs(status, views.blank(), steps=_hidden())
        gallery, seed = views.pictures(outcome) + views.parameters(outcome), outcome.job.seed
        result = outcome.results.get("asyndm")
        if result is None:
            return _outputs(status, gallery, outcome, steps=_hidden(), seed=seed)
        number = views.most_apart(result) + 1
        slider = gr.update(maximum=len(result.strength), value=number)
        step = self.step(outcome, number)
        return _outputs(status, gallery, outcome, gr.update(visible=True), slider, step, seed)

    def step(self, outcome: Outcome | None, number: float | None) -> str:
        """The view of a step, counted from 1."""
        if outcome is None or "asyndm" not in outcome.results:
            return ""
        result = outcome.results["asyndm"]
        index = min(max(int(number or 1), 1), len(result.strength)) - 1
        prediction = self._engine.picture(result.predictions[index : index + 1])
        return views.step(outcome.job, result, index, prediction)

    def interrupt(self, request: gr.Request) -> None:
        """Stops this window's drawing, if there is one."""
        stop = self._stops.get(request.session_hash)
        if stop is not None:
            stop.set()


def not_begun(status: str) -> Any:
    """After a drawing: what to say if it never began, because gradio has refused a control's value."""
    if status == views.waiting():
        return views.wrong("a number is outside of what its control allows")
    return gr.update()


def _hidden() -> Any:
    return gr.update(visible=False)


def _outputs(
    status: str,
    gallery: str,
    outcome: Any = None,
    steps: Any = None,
    slider: Any = None,
    step: Any = None,
    seed: Any = None,
    running: bool = False,
) -> list[Any]:
    """Values of the outputs, in their order; None leaves one as it is."""
    buttons = [gr.update(interactive=not running), gr.update(interactive=running)]
    rest = [gr.update() if one is None else one for one in (outcome, steps, slider, step, seed)]
    return [status, *buttons, gallery, *rest]


# --- the layout -----------------------------------------------------------------------------------------------------


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
                    placeholder="coloured shapes: a red circle to the left of a blue square on a white background",
                    elem_id="studio_prompt",
                )
            with gr.Column(scale=1, min_width=140, elem_id="studio_buttons"):
                run = gr.Button("Run", variant="primary", elem_id="studio_run")
                interrupt = gr.Button("Interrupt", interactive=False, elem_id="studio_interrupt")
        with gr.Row(elem_id="studio_examples"):
            examples = [gr.Button(example, size="sm", elem_classes=["studio-example"]) for example in EXAMPLES]
        with gr.Row(elem_id="studio_body"):
            with gr.Column(scale=5, min_width=320):
                drawing = _drawing_controls()
                source = panel.PromptSource((prompt,), lambda text: text or "", find_objects)
                settings = panel.build(input_accordion, elem_id, source, is_open=True, without=WITHOUT, helps=HELPS)
            with gr.Column(scale=7, min_width=320, elem_id="studio_results"):
                status = gr.HTML(views.idle(), elem_id="studio_status")
                gallery = gr.HTML(views.blank(), elem_id="studio_gallery")
                with gr.Column(visible=False, elem_id="studio_history") as steps:
                    slider = gr.Slider(1, 2, value=1, step=1, label="Step", interactive=True, elem_id="studio_step")
                    step = gr.HTML(elem_id="studio_step_view")
        outcome = gr.State()
        dice = drawing.pop("dice")

        studio = Studio(engine, tuple(settings))
        controls = {"prompt": prompt, **drawing}
        inputs = [outcome, *(controls[name] for name in DRAWING), *settings.values()]
        outputs = [status, run, interrupt, gallery, outcome, steps, slider, step, drawing["seed"]]
        begun = gr.on([run.click, prompt.submit], views.waiting, [], [status], show_progress="hidden", queue=False)
        drawn = begun.then(studio.draw, inputs, outputs, show_progress="hidden", concurrency_limit=1)
        drawn.then(not_begun, [status], [status], show_progress="hidden", queue=False)
        interrupt.click(studio.interrupt, [], [], queue=False)
        slider.change(
            studio.step, [outcome, slider], [step], show_progress="hidden", trigger_mode="always_last", queue=False
        )
        dice.click(random_seed, [], [drawing["seed"]], show_progress="hidden", queue=False)
        for button, example in zip(examples, EXAMPLES, strict=True):
            button.click(fn=None, js=f"() => {example!r}", inputs=[], outputs=[prompt], queue=False)
    return page


_HEADER = (
    '<header class="studio-header"><h1>AsynDM studio</h1>'
    "<p>One prompt and one noise, drawn on three clocks by the tiny model that comes with AsynDM.</p>"
    '<button type="button" class="studio-theme" title="Light or dark" onclick="studio.turnTheme()">◐</button></header>'
)


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
            slider("guidance", 0, 15, GUIDANCE, 0.5, "Guidance")
        with gr.Row():
            slider("width", SIDE_STEP, MAX_SIDE, 128, SIDE_STEP, "Width")
            slider("height", SIDE_STEP, MAX_SIDE, 128, SIDE_STEP, "Height")
        with gr.Row(elem_id="studio_seed_row"):
            controls["seed"] = gr.Number(1, label="Seed", precision=0, elem_id="studio_seed", min_width=140, scale=4)
            controls["dice"] = gr.Button("New seed", size="sm", scale=1, min_width=90, elem_id="studio_dice")
    return controls
