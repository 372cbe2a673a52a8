"""One WebUI over HTTP: JSON in, JSON out, and the two ways in which it can go wrong."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

_GATEWAY = (502, 503, 504)


class Unreachable(RuntimeError):
    """The WebUI does not answer, or not to us. ``final``: another try is useless."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Refused(RuntimeError):
    """The WebUI answered that it cannot do this; the message is its own."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A password must not follow to another address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Api:
    """A WebUI's API.

    Args:
        url: without a path behind it.
        auth: "user:password", or "".
        timeout: for one answer, seconds.

    Raises:
        ValueError: the address is none.
    """

    def __init__(self, url: str, auth: str = "", timeout: float = 600.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a WebUI; write http://127.0.0.1:7860")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json"}
        if auth:
            self._headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
        near = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._opener = urllib.request.build_opener(
            _NoRedirects,
            *([urllib.request.ProxyHandler({})] if near else []),  # a proxy cannot reach this machine
        )

    def get(self, path: str) -> Any:
        return self._ask(path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, data: bytes | None) -> Any:
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code in _GATEWAY:
                raise Unreachable(f"{self.url} answers {error.code}") from None
            if error.code in (401, 403):
                raise Unreachable(f"{self.url} wants another user and password (--auth)", final=True) from None
            if error.code == 404 or 300 <= error.code < 400:
                raise Unreachable(f"{self.url}{path} answers {error.code}: is it a WebUI with --api?", True) from None
            raise Refused(_told(text) or f"HTTP {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from None
        except json.JSONDecodeError:
            raise Unreachable(f"{self.url}{path} does not answer in JSON: is it a WebUI with --api?", True) from None


def _told(text: str) -> str:
    """The message in an error's body; AUTOMATIC1111 and Forge name it differently."""
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        return " ".join(text.split())[:300]
    if not isinstance(body, dict):
        return str(body)[:300]
    found = body.get("errors") or body.get("message") or body.get("detail") or body.get("error") or ""
    return " ".join(str(found).split())[:300]
