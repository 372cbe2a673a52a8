"""The routes under ``/asyndm/v1/``: they are there where the WebUI's own API is, and ask for the same credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import k_diffusion.sampling
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException
from modules import sd_samplers

from asyndm_ext.hosts.webui import job, prompt_tokens
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.host import Host, current
from asyndm_ext.model.unet_time import UnsupportedModel
from asyndm_ext.ui import api, schema
from asyndm_ext.ui.gate import Gate, Turned

PREFIX = "/asyndm/v1"
HOST_ROUTE = "/sdapi/v1/options"
"""A route of the WebUI's API that is always there with it; ours depend on what it depends on: the credentials."""


def add(demo: Any, app: FastAPI) -> None:
    """Callback of the started server, with and without the page; adds the routes once."""
    paths: dict[str | None, Any] = {getattr(route, "path", None): route for route in app.routes}
    if HOST_ROUTE not in paths or f"{PREFIX}/capabilities" in paths:
        return
    dependencies = paths[HOST_ROUTE].dependencies

    gate = Gate()

    def route(method: str, name: str, endpoint: Callable[..., Any], answer: schema.Schema, **extra: Any) -> None:
        app.add_api_route(
            f"{PREFIX}/{name}",
            endpoint,
            methods=[method],
            dependencies=dependencies,
            response_model=None,
            responses={200: {"content": {"application/json": {"schema": answer}}}},
            tags=["AsynDM"],
            **extra,
        )

    # FastAPI would read an annotation as a model, and documents the first line of a function.
    async def validate(request: Request):  # type: ignore[no-untyped-def]
        """Whether a job would take these settings."""
        return await _answered(gate, request, api.validate)

    async def tokens(request: Request):  # type: ignore[no-untyped-def]
        """The tokens of a prompt with their columns, and the objects that would be slow."""
        return await _answered(gate, request, _tokens)

    async def last_run(masks: bool = True):  # type: ignore[no-untyped-def]
        """What the last job with AsynDM did, step by step; null before the first."""
        return await _answered(gate, None, lambda _: job.last_run.answer(masks))

    route("GET", "capabilities", capabilities, schema.CAPABILITIES_ANSWER)
    route("POST", "validate", validate, schema.VALIDATE_ANSWER, openapi_extra=_takes(schema.settings_schema()))
    route("POST", "tokens", tokens, schema.TOKENS_ANSWER, openapi_extra=_takes(schema.TOKENS_REQUEST))
    route("GET", "last-run", last_run, schema.LAST_RUN_ANSWER)


async def _answered(gate: Gate, request: Request | None, work: Callable[[Any], Any]) -> Response:
    try:
        return Response(await gate.answer(request, work), media_type="application/json")
    except Turned as error:
        raise HTTPException(error.status, f"AsynDM: {error}", error.headers) from error


def _takes(body: schema.Schema) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}


def capabilities():  # type: ignore[no-untyped-def] # FastAPI would read an annotation as a model
    """What AsynDM can do here: samplers, models, settings."""
    host = _host()
    model = host.model()
    flow = model is not None and host.is_flow()
    samplers = (api.sampler(name, function, flow, host.excludes) for name, function in _samplers())
    return api.capabilities(host.name, host.models, _model(host, model), samplers)


def _tokens(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the route ``tokens``. Raises Turned."""
    try:
        prompt, negative, objects, steps = api.tokens_request(request)
    except ValueError as error:
        raise Turned(422, str(error)) from error
    host = _host()
    if host.model(load=True) is None:
        raise Turned(503, "no model is loaded yet, so there is no tokenizer to ask")
    try:
        return prompt_tokens.read(host.finder(), prompt, negative, objects, steps)
    except AsynDMError as error:
        raise HTTPException(409, str(error)) from error
    except NotApplied as reason:
        raise HTTPException(409, f"AsynDM: {reason}") from reason
    except prompt_tokens.TooMuch as error:
        raise Turned(422, str(error)) from error
    except RecursionError as error:
        raise Turned(422, "the brackets of the prompt are nested too deeply for the WebUI") from error


def _host() -> Host:
    """Raises HTTPException: this WebUI is one that AsynDM does not support."""
    try:
        return current()
    except AsynDMError as error:
        raise HTTPException(409, str(error)) from error


def _model(host: Host, model: Any) -> dict[str, Any]:
    if model is None:
        return {"loaded": False, "name": None, "supported": None, "reason": None}
    reason = None
    try:
        host.check(model)
    except UnsupportedModel as error:
        reason = str(error)
    name = getattr(getattr(model, "sd_checkpoint_info", None), "name", None)
    return {"loaded": True, "name": name, "supported": reason is None, "reason": reason}


def _samplers() -> Iterator[tuple[str, Callable[..., Any] | None]]:
    """The WebUI's samplers and their functions, which it keeps as defaults of what makes the sampler."""
    for sampler in sd_samplers.all_samplers:
        defaults = getattr(sampler.constructor, "__defaults__", None) or ()
        found = [getattr(k_diffusion.sampling, one, None) if isinstance(one, str) else one for one in defaults]
        yield sampler.name, next((one for one in found if callable(one)), None)
