"""What the page does when something is pressed. Without any layout, so that it can be called as the page calls it."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from asyndm_ext.region import mask_image
from asyndm_ext.studio import link, messages, pictures, report, runs, steps
from asyndm_ext.studio.engine import Engine, Interrupted, Outcome
from asyndm_ext.studio.request import DRAWING, find_objects, job_from
from asyndm_ext.studio.runs import Desk
from asyndm_ext.world.words import split

OUTPUTS = (
    "status", "run", "interrupt", "gallery", "desk", "steps", "slider", "step", "seed", "runs", "actions", "link",
)  # fmt: skip
"""What a drawing changes on the page, in the order of the values that :meth:`Studio.draw` yields."""
_BUTTONS = {
    True: {"run": {"interactive": False}, "interrupt": {"interactive": True}},
    False: {"run": {"interactive": True}, "interrupt": {"interactive": False}},
}


class Studio:
    """The functions behind the page.

    A press on Run is three calls: :meth:`begin`, :meth:`draw` and :meth:`settle`, the last of them whatever has become
    of the others, so that Run and Interrupt come back.

    Args:
        engine: draws.
        names: of the panel's controls, in the order of their values.
    """

    def __init__(self, engine: Engine, names: tuple[str, ...]) -> None:
        self._engine = engine
        self.names = (*DRAWING, *names)
        self._turns: dict[str | None, threading.Event] = {}
        """Of each window that waits for an answer, what stops its drawing."""

    # --- a run

    def begin(self, request: gr.Request) -> list[Any]:
        """Takes a turn for this window; gives the status and the two buttons. A second press changes nothing."""
        if request.session_hash in self._turns:
            return [gr.update()] * 3
        self._turns[request.session_hash] = threading.Event()
        return outputs(running=True, status=messages.waiting())[:3]

    def draw(self, request: gr.Request, desk: Desk, *values: Any) -> Iterator[list[Any]]:
        """Draws; yields the values of :data:`OUTPUTS`.

        Args:
            request: tells whose window it is.
            desk: what the window has shown until now, and shows again when nothing comes of this.
            values: of :attr:`names`.
        """
        stop = self._turns.get(request.session_hash)
        if stop is None:  # the second of two presses, whose turn the first has had
            yield outputs()
            return
        try:
            yield from self._drawn(desk, stop, dict(zip(self.names, values, strict=True)))
        except Exception as error:
            traceback.print_exc()
            yield outputs(running=False, status=messages.accident(error))
        # Not where the page could not take what was yielded: then settle() finds the turn, and says so.
        self._turns.pop(request.session_hash, None)

    def _drawn(self, desk: Desk, stop: threading.Event, values: dict[str, Any]) -> Iterator[list[Any]]:
        drawing = {name: values[name] for name in DRAWING}
        settings = {name: value for name, value in values.items() if name not in DRAWING}
        try:
            job, variants = job_from(drawing, settings)
            for news in self._engine.draw(job, variants, stop):
                if isinstance(news, Outcome):
                    desk = desk.with_run(news, values)
                    yield self._shown(messages.finished(news), desk)
                else:
                    yield outputs(
                        running=True,
                        status=messages.working(news),
                        gallery=pictures.previews(job, news),
                        steps=gr.update(visible=False),
                        actions=gr.update(visible=False),
                    )
        except Interrupted:
            yield self._shown(messages.interrupted(), desk)
        except ValueError as error:
            yield self._shown(messages.wrong(str(error)), desk)

    def settle(self, request: gr.Request) -> list[Any]:
        """After a drawing, whatever has become of it: the status if nobody has said anything, and the buttons."""
        unanswered = self._turns.pop(request.session_hash, None)
        if unanswered is None:
            return outputs(running=False)[:3]
        unanswered.set()
        return outputs(running=False, status=messages.lost())[:3]

    def interrupt(self, request: gr.Request) -> None:
        """Stops this window's drawing, if there is one."""
        stop = self._turns.get(request.session_hash)
        if stop is not None:
            stop.set()

    def leave(self, request: gr.Request) -> None:
        """The window has been closed."""
        stop = self._turns.pop(request.session_hash, None)
        if stop is not None:
            stop.set()

    # --- what is seen

    def _shown(self, status: str, desk: Desk, running: bool | None = False) -> list[Any]:
        """A status, and what there is to see."""
        if desk.shown is None:
            return outputs(running, status=status, gallery=pictures.blank(), steps=gr.update(visible=False))
        outcome = desk.shown.outcome
        seen = {
            "status": status,
            "gallery": pictures.results(outcome) + pictures.parameters(outcome),
            "desk": desk,
            "steps": gr.update(visible=False),
            "seed": outcome.job.seed,
            "runs": runs.html(desk),
            "actions": gr.update(visible=True),
            "link": _address(desk.shown.values),
        }
        result = outcome.results.get("asyndm")
        if result is not None:
            number, count = steps.most_apart(result) + 1, len(result.strength)
            seen |= {
                "steps": gr.update(visible=True),
                # gradio knows no slider with one value.
                "slider": gr.update(maximum=max(count, 2), value=number, visible=count > 1),
                "step": self.step(desk, number),
            }
        return outputs(running, **seen)

    def step(self, desk: Desk, number: float | None) -> str:
        """The view of a step, counted from 1."""
        if desk.shown is None or "asyndm" not in desk.shown.outcome.results:
            return ""
        result = desk.shown.outcome.results["asyndm"]
        index = min(max(int(number or 1), 1), len(result.strength)) - 1
        try:
            prediction = self._engine.picture(result.predictions[index : index + 1])
            return steps.step(desk.shown.outcome.job, result, index, prediction)
        except Exception as error:
            traceback.print_exc()
            return messages.accident(error)

    # --- runs, links, files

    def pick(self, request: gr.Request, desk: Desk, number: float | None, mask: str | None) -> list[Any]:
        """Brings a run back: the values of :data:`OUTPUTS`, and of what :meth:`_restored` gives.

        Args:
            number: of the run.
            mask: that is in the panel now.
        """
        if request.session_hash in self._turns:
            return self._unchanged()
        try:
            desk = desk.showing(number)
            assert desk.shown is not None
            shown = self._shown(messages.finished(desk.shown.outcome), desk, running=None)
            return [*shown, *self._restored(desk.shown.values, mask)]
        except ValueError as error:
            return self._unchanged(messages.wrong(str(error)))
        except Exception as error:
            traceback.print_exc()
            return self._unchanged(messages.accident(error))

    def open(self, text: str | None, mask: str | None) -> list[Any]:
        """An address was opened: the status, "run" if it is to be drawn at once, and what :meth:`_restored` gives."""
        try:
            values, left_out, run = link.read(text or "")
            values = {name: value for name, value in values.items() if name in self.names}
            if not values and not left_out:
                return [gr.update(), "", *self._restored({}, mask)]
            problem = _unreadable(values.get("prompt", ""))
            if problem is None:
                status = messages.in_part("The link", left_out) if left_out else messages.restored("The link")
            else:
                status = messages.unreadable(problem, left_out)
            at_once = run and not left_out and problem is None
            return [status, "run" if at_once else "", *self._restored(values, mask)]
        except Exception as error:
            traceback.print_exc()
            return [messages.accident(error), "", *self._restored({}, mask)]

    def bundle(self, desk: Desk) -> list[Any]:
        """The run that is shown as one file: its name and text in JSON, and the status."""
        if desk.shown is None:
            return ["", messages.wrong("there is no picture yet: press Run first")]
        try:
            name, page = report.written(desk.shown, self._engine.model.decode)
            return [json.dumps({"name": name, "text": page}), gr.update()]
        except Exception as error:
            traceback.print_exc()
            return ["", messages.accident(error)]

    def _restored(self, values: Mapping[str, Any], mask: str | None) -> list[Any]:
        """Values of the controls, of the panel's fold, and of the picture that the mask is painted on."""
        controls = [values.get(name, gr.update()) for name in self.names]
        fold = gr.update(open=values["enabled"]) if "enabled" in values else gr.update()
        new = values.get("mask")
        return [*controls, fold, gr.update() if new is None or new == (mask or "") else _painted(new)]

    def _unchanged(self, status: str | None = None) -> list[Any]:
        nothing = [gr.update()] * (len(self.names) + 2)
        return [*(outputs() if status is None else outputs(status=status)), *nothing]


def outputs(running: bool | None = None, **values: Any) -> list[Any]:
    """Values of :data:`OUTPUTS`: those that are given, and the two buttons; the others stay as they are.

    Args:
        running: whether a drawing is at work; None leaves the buttons.
    """
    if running is not None:
        values |= {name: gr.update(**looks) for name, looks in _BUTTONS[running].items()}
    return [values.get(name, gr.update()) for name in OUTPUTS]


def _address(values: Mapping[str, Any]) -> str:
    note = "" if link.fits(values) else "without the mask, which is too large for a link"
    return json.dumps({"link": link.written(values), "note": note})


def _unreadable(prompt: str) -> str | None:
    """Why the model cannot read a link's prompt, if so."""
    if not messages.SHAPES.isdisjoint(split(prompt)):
        return messages.of_shapes(prompt)
    try:
        find_objects(prompt)
    except ValueError as error:
        return str(error)
    return None


def _painted(mask: str) -> Any:
    """A mask as gradio's picture control has it: white paint on black."""
    if not mask:
        return None
    alpha = mask_image.decode(mask)
    paint = Image.new("RGBA", alpha.size, (255, 255, 255, 0))
    paint.putalpha(alpha)
    black = Image.new("RGBA", alpha.size, (0, 0, 0, 255))
    return {"background": black, "layers": [paint], "composite": Image.alpha_composite(black, paint)}
