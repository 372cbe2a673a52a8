"""What the API lets in, how much of it it holds, and that one request is worked on at a time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asyndm_ext.ui.gate import MEGABYTE, Gate, Turned


class Sent:
    """A request; ``chunks`` are what has been taken of it so far."""

    def __init__(self, body: bytes, length: int | None = None, chunk: int = 65536, never_ends: bool = False) -> None:
        self.headers = {} if length is None else {"content-length": str(length)}
        self._body, self._chunk, self._never_ends = body, chunk, never_ends
        self.taken = 0

    async def stream(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._chunk):
            self.taken = start + self._chunk
            yield self._body[start : start + self._chunk]
            await asyncio.sleep(0)
        if self._never_ends:
            await asyncio.sleep(3600)


def ask(gate: Gate, request: Sent | None, work: Callable[[Any], Any] = lambda body: body) -> Any:
    return json.loads(asyncio.run(gate.answer(request, work)))


def turned(gate: Gate, request: Sent, work: Callable[[Any], Any] = lambda body: body) -> Turned:
    with pytest.raises(Turned) as caught:
        ask(gate, request, work)
    assert (gate._held, gate._inside) == (0, 0), "nothing is kept of it"
    assert ask(gate, Sent(b"{}")) == {}, "and others get in"
    return caught.value


def test_a_dictionary_and_nothing() -> None:
    assert ask(Gate(), Sent('{"prompt": "ein Käfer"}'.encode(), chunk=3)) == {"prompt": "ein Käfer"}
    assert ask(Gate(), None, lambda body: [body]) == [None]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"x"', b"7", b"{", b"\xff", b"[" * 40_000, b"1" * 5000])
def test_what_is_no_dictionary(body: bytes) -> None:
    assert turned(Gate(), Sent(body)).status == 422


def test_a_large_one_is_not_kept() -> None:
    """It passes by, so that its sender hears the answer; a huge one is not even looked at."""
    held = []

    class Watched(Sent):
        async def stream(self) -> AsyncIterator[bytes]:
            async for chunk in super().stream():
                held.append(gate._held)
                yield chunk

    for announced, taken in ((MEGABYTE + 1, MEGABYTE), (9 * MEGABYTE, 0)):
        gate = Gate(body=1)
        request = Watched(b"x" * MEGABYTE, length=announced)
        assert turned(gate, request).status == 413
        assert request.taken == taken and set(held) <= {0}


@pytest.mark.parametrize("length", [None, 12])
def test_or_at_the_limit_where_it_does_not_say_so(length: int | None) -> None:
    request = Sent(b"x" * 9 * MEGABYTE, length=length)
    assert turned(Gate(body=1), request).status == 413
    assert request.taken <= MEGABYTE + 65536


def test_many_small_parts_take_more_than_they_are() -> None:
    assert turned(Gate(parts=1000), Sent(b'{"objects": [' + b"[]," * 1000 + b"0]}")).status == 413


def test_one_that_never_ends() -> None:
    assert turned(Gate(patience=0.05), Sent(b"{", never_ends=True)).status == 408


def test_one_at_a_time_and_the_loop_goes_on() -> None:
    at_work: list[str] = []

    def work(body: Any) -> int:
        at_work.append(threading.current_thread().name)
        assert not lock.locked(), "alone"
        with lock:
            threading.Event().wait(0.01)
        return body["number"]

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(gate.answer(Sent(b'{"number": %d}' % n), work) for n in range(20)))

    lock, gate = threading.Lock(), Gate()
    assert [json.loads(answer) for answer in asyncio.run(all_of_them())] == list(range(20))
    assert len(set(at_work)) == 1 and at_work[0] != threading.current_thread().name


HALF = b'{"mask": "' + b"x" * (MEGABYTE // 2 - 20) + b'"}'


@pytest.mark.parametrize(
    ("limits", "body", "let_in"),
    [
        ({"most": 3, "patience": 60}, b"{}", 2),
        ({"together": 1, "patience": 60}, HALF, 2),
        ({"patience": 0.05}, b"{}", 0),
    ],
)
def test_too_many_are_told_to_come_again(limits: dict[str, Any], body: bytes, let_in: int) -> None:
    """By number, by size, and where their turn does not come. What has begun is finished."""
    begun, go_on = threading.Event(), threading.Event()
    gate = Gate(**{"patience": 60, **limits})

    def work(body: Any) -> str:
        begun.set()
        go_on.wait(60)
        return "done"

    async def crowd() -> list[Any]:
        first = asyncio.ensure_future(gate.answer(Sent(b"{}"), work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(gate.answer(Sent(body, chunk=MEGABYTE), work)) for _ in range(9)]
        while sum(other.done() for other in others) < 9 - let_in:
            await asyncio.sleep(0.001)
        go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    try:
        answers = asyncio.run(asyncio.wait_for(crowd(), 20))
    finally:
        go_on.set()
    turned_away = [answer for answer in answers if isinstance(answer, Turned)]
    assert [(one.status, one.headers) for one in turned_away] == [(503, {"Retry-After": "2"})] * (9 - let_in)
    assert [answer for answer in answers if answer not in turned_away] == [b'"done"'] * (1 + let_in)
    assert (gate._held, gate._inside) == (0, 0)
    assert ask(gate, Sent(b"{}"), lambda body: "free again") == "free again"


def test_what_the_work_raises_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(Gate(), None, lambda body: 1 / 0)
