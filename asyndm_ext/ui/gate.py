"""How much the API does at once: it holds so many bytes, and works on one request at a time, in a thread of its own.

The WebUI answers its page and its API with one event loop and one pool of threads. What takes time must not keep the
loop, and what comes in numbers must not fill the pool: the page would stand still.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Protocol

MEGABYTE = 2**20
_LET_PASS = 8
"""Up to so many times the limit a request is taken, and thrown away as it comes."""


class Request(Protocol):
    """Starlette's, as far as it is needed."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def stream(self) -> AsyncIterator[bytes]: ...


class Turned(Exception):
    """A request is turned away: the message says why.

    Attributes:
        status: of the answer.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Gate:
    """Where requests come in.

    Args:
        body: megabytes that one request may have.
        together: megabytes that are held of all requests.
        most: requests that may be inside.
        patience: seconds in which a request has to arrive, and then to have its turn.
        parts: numbers, texts, lists and so on in a request. An empty list takes two bytes on its way and sixty here.
    """

    def __init__(
        self, body: int = 16, together: int = 32, most: int = 64, patience: float = 20.0, parts: int = 50_000
    ) -> None:
        self._body, self._together, self._most = body * MEGABYTE, together * MEGABYTE, most
        self._patience, self._parts = patience, parts
        self._held = self._inside = 0
        self._worker = ThreadPoolExecutor(1, "asyndm-api")

    async def answer(self, request: Request | None, work: Callable[[Any], Any]) -> bytes:
        """Do a request's work.

        Args:
            request: with its body, a dictionary in JSON; None for one without.
            work: from the dictionary to the answer, JSON types; called in the worker's thread.

        Returns:
            The answer in JSON.

        Raises:
            Turned: it is too much, or no dictionary.
            Exception: what ``work`` raises.
        """
        if self._inside >= self._most:
            self._refuse_the_number()
        self._inside += 1
        kept = _Kept(self)
        try:
            if request is not None:
                await asyncio.wait_for(self._read(request, kept), self._patience)
            return await self._in_turn(lambda: _in_json(work(self._parsed(kept.data) if request is not None else None)))
        except asyncio.TimeoutError:
            raise Turned(408, f"the request did not arrive within {self._patience:g} seconds") from None
        finally:
            self._inside -= 1
            self._held -= len(kept.data)

    async def _read(self, request: Request, kept: _Kept) -> None:
        length = request.headers.get("content-length", "0")
        announced = int(length[:20]) if length.isdecimal() else 0
        if announced > self._body:
            if announced <= _LET_PASS * self._body:  # a client that is still sending hears no answer
                async for _ in request.stream():
                    pass
            self._refuse_the_size()
        async for chunk in request.stream():
            kept.add(chunk)
            if len(kept.data) > self._body:
                self._refuse_the_size()
            if self._held > self._together:
                self._refuse_the_number()

    async def _in_turn(self, work: Callable[[], bytes]) -> bytes:
        future = self._worker.submit(work)
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait([result], timeout=self._patience)
        finally:
            has_not_begun = future.cancel()  # also of a client that waits no longer
        if has_not_begun:
            self._refuse_the_number()
        return await result

    def _parsed(self, data: bytearray) -> dict[str, Any]:
        if sum(map(data.count, (b",", b"[", b"{"))) > self._parts:
            raise Turned(413, f"the request has more than {self._parts} parts")
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise Turned(422, "the request is no JSON that can be read") from None
        if not isinstance(body, dict):
            raise Turned(422, 'the request must be a dictionary: {"key": value, ...}')
        return body

    def _refuse_the_size(self) -> NoReturn:
        raise Turned(413, f"the request is larger than {self._body // MEGABYTE} MB; a smaller mask will do")

    def _refuse_the_number(self) -> NoReturn:
        raise Turned(503, "there are too many requests at once; please try again in a moment", {"Retry-After": "2"})


class _Kept:
    """What has arrived of a request, as part of what the gate holds."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.data = bytearray()

    def add(self, chunk: bytes) -> None:
        self.data += chunk
        self._gate._held += len(chunk)


def _in_json(answer: Any) -> bytes:
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
