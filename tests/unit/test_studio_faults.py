"""Whatever raises in the studio, Run and Interrupt come back, the error is told once, and the next run is as ever."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("gradio", minversion="5.50")

from support.studio import PROMPT, SHOWN, WINDOW, draw, images, named, of, values
from support.tiny import random_model

from asyndm_ext.studio import page
from asyndm_ext.studio.engine import Engine
from asyndm_ext.studio.runs import Desk
from asyndm_ext.studio.session import Studio

PIECES = (
    "asyndm_ext.studio.session.job_from",
    "asyndm_ext.studio.request.Settings",
    "asyndm_ext.studio.engine.Engine.draw",
    "asyndm_ext.studio.engine.Engine.picture",
    "asyndm_ext.studio.engine.Engine.faults",
    "asyndm_ext.studio.engine.threads_for",
    "asyndm_ext.studio.engine.count_of_all",
    "asyndm_ext.studio.engine.run_variant",
    "asyndm_ext.studio.engine.to_picture",
    "asyndm_ext.studio.engine.threading.Thread.start",
    "asyndm_ext.studio.messages.working",
    "asyndm_ext.studio.messages.finished",
    "asyndm_ext.studio.pictures.previews",
    "asyndm_ext.studio.pictures.results",
    "asyndm_ext.studio.pictures.parameters",
    "asyndm_ext.studio.pictures.data_url",
    "asyndm_ext.studio.pictures.verdict",
    "asyndm_ext.studio.runs.Desk.with_run",
    "asyndm_ext.studio.runs.html",
    "asyndm_ext.studio.steps.most_apart",
    "asyndm_ext.studio.link.written",
)
"""Everything that a run goes through."""


@pytest.fixture(scope="module")
def built() -> Any:
    return page.build(Engine(random_model()))


@pytest.fixture
def studio() -> Studio:
    return Studio(Engine(random_model()), SHOWN)


@pytest.fixture(scope="module")
def before(built: Any) -> dict[str, Any]:
    """A run without faults."""
    return list(draw(Studio(Engine(random_model()), SHOWN), values(built)))[-1]


def broken(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("this piece is broken")


def alerts(html: str) -> int:
    return html.count('role="alert"')


@pytest.mark.parametrize("piece", PIECES)
def test_a_broken_piece(
    built: Any, studio: Studio, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch, piece: str, capsys: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(piece, broken)
        *_, last = draw(studio, values(built), before["desk"])
    assert last["run"]["interactive"] and not last["interrupt"]["interactive"]
    assert "This went wrong: this piece is broken" in last["status"] and alerts(last["status"]) == 1
    assert "Traceback" not in last["status"] and "Traceback" in capsys.readouterr().err
    assert not [one for one in threading.enumerate() if one.name == "asyndm-drawing"]
    again = list(draw(studio, values(built), before["desk"]))[-1]
    assert [one.tobytes() for one in images(again["gallery"])] == [one.tobytes() for one in images(before["gallery"])]


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt, SystemExit])
def test_what_ends_the_thread(built: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    def ended(*arguments: Any) -> None:
        raise kind

    monkeypatch.setattr("asyndm_ext.studio.engine.run_variant", ended)
    (only,) = draw(studio, values(built))
    assert kind.__name__ in only["status"] and only["run"]["interactive"]


@pytest.mark.parametrize("piece", ["asyndm_ext.studio.steps.step", "asyndm_ext.studio.steps.chart"])
def test_a_broken_step_leaves_the_pictures(
    built: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch, piece: str
) -> None:
    monkeypatch.setattr(piece, broken)
    last = list(draw(studio, values(built)))[-1]
    assert alerts(last["step"]) == 1 and alerts(last["status"]) == 0 and len(images(last["gallery"])) == 3
    assert "this piece is broken" in studio.step(last["desk"], 1)


def test_an_answer_that_the_page_cannot_take(built: Any, studio: Studio) -> None:
    """gradio raises between two of our yields, and calls nothing but settle() after it."""
    studio.begin(WINDOW)
    drawing = studio.draw(WINDOW, Desk(), *values(built, steps=100))
    assert not named(next(drawing))["run"]["interactive"]
    last = named(studio.settle(WINDOW))
    assert last["run"]["interactive"] and not last["interrupt"]["interactive"] and alerts(last["status"]) == 1
    drawing.close()
    assert not [one for one in threading.enumerate() if one.name == "asyndm-drawing"]
    assert len(images(list(draw(studio, values(built)))[-1]["gallery"])) == 3


def test_a_drawing_that_never_began(studio: Studio) -> None:
    studio.begin(WINDOW)
    last = named(studio.settle(WINDOW))
    assert last["run"]["interactive"] and "Press Run to try again" in last["status"]
    assert "status" not in named(studio.settle(WINDOW))


def test_settle_comes_after_everything(built: Any) -> None:
    """Also after a drawing that has failed."""
    begin, drawing = of(built, "begin"), of(built, "draw")
    assert drawing.trigger_after == begin._id and not drawing.trigger_only_on_success
    settling = [fn for fn in built.fns.values() if fn.name == "settle"]
    after = {(fn.trigger_after, fn.trigger_only_on_failure) for fn in settling}
    assert after == {(drawing._id, False), (drawing._id, True), (begin._id, True)}
    assert not any(fn.trigger_only_on_success for fn in settling)


def test_a_second_press_draws_nothing(built: Any, studio: Studio) -> None:
    """Return in the prompt while it draws."""
    studio.begin(WINDOW)
    first = studio.draw(WINDOW, Desk(), *values(built))
    next(first)
    assert named(studio.begin(WINDOW)) == {}
    *_, last = first
    assert "pictures in" in named(last)["status"]
    (second,) = studio.draw(WINDOW, Desk(), *values(built))
    assert named(second) == {}
    assert set(named(studio.settle(WINDOW))) == {"run", "interrupt"}


def test_interrupt_while_it_waits(built: Any, studio: Studio) -> None:
    begun = named(studio.begin(WINDOW))
    assert begun["interrupt"]["interactive"] and not begun["run"]["interactive"]
    studio.interrupt(WINDOW)
    *_, last = map(named, studio.draw(WINDOW, Desk(), *values(built)))
    assert "Interrupted" in last["status"] and last["run"]["interactive"]


def test_a_closed_window_is_forgotten(built: Any, studio: Studio) -> None:
    studio.begin(WINDOW)
    drawing = studio.draw(WINDOW, Desk(), *values(built, steps=100))
    next(drawing)
    studio.leave(WINDOW)
    assert "Interrupted" in list(map(named, drawing))[-1]["status"]
    assert "status" not in named(studio.settle(WINDOW))
    studio.leave(SimpleNamespace(session_hash="never seen"))


@pytest.mark.parametrize(
    ("call", "piece", "status"),
    [
        (lambda s, desk: s.pick(WINDOW, desk, 1, ""), "asyndm_ext.studio.pictures.results", 0),
        (lambda s, desk: s.pick(WINDOW, desk, 1, ""), "asyndm_ext.studio.session._address", 0),
        (lambda s, desk: s.open(f"#prompt={PROMPT}", ""), "asyndm_ext.studio.link.read", 0),
        (lambda s, desk: s.open(f"#prompt={PROMPT}&mask=x", ""), "asyndm_ext.studio.session._painted", 0),
        (lambda s, desk: s.bundle(desk), "asyndm_ext.studio.report.written", 1),
        (lambda s, desk: s.bundle(desk), "asyndm_ext.studio.report.filmstrip", 1),
    ],
)
def test_the_other_buttons(
    studio: Studio, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: Any, piece: str, status: int
) -> None:
    desk = before["desk"]
    count = len(call(studio, desk))
    monkeypatch.setattr(piece, broken)
    answer = call(studio, desk)
    assert len(answer) == count, "the page gets as many values as it expects"
    assert "this piece is broken" in answer[status] and alerts(answer[status]) == 1
    assert named(studio.begin(WINDOW))["interrupt"]["interactive"], "and Run is not affected"
