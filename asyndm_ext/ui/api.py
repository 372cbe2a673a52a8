"""What the routes under ``/asyndm/v1/`` answer, as far as no WebUI is needed for it; JSON types only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asyndm_ext import __version__
from asyndm_ext.messages import is_text, listed, shown
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects
from asyndm_ext.settings import Settings, SettingsError
from asyndm_ext.solvers import LEFT_OUT, Solver
from asyndm_ext.solvers.resolve import solver_for
from asyndm_ext.ui.infotext import entries_of
from asyndm_ext.ui.schema import MAX_MARKS, MAX_PROMPT, MAX_STEPS, TOKENS_REQUEST, settings_schema


def validate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a job would take this dictionary, and what it makes of it; or the message that would stop the job."""
    try:
        read = Settings.from_dict(settings)
    except SettingsError as error:
        return {"ok": False, "message": str(error)}
    return {"ok": True, "settings": read.to_dict(), "infotext": entries_of(read)}


def tokens_request(request: Mapping[str, Any]) -> tuple[str, str | None, tuple[ObjectSpec, ...], int]:
    """The prompt, the negative prompt, the objects and the steps of a request for tokens.

    Raises:
        ValueError: it is not what the schema says, or its prompts would keep the WebUI's parser busy: the time that it
            takes grows with the third power of their brackets and colons.
    """
    unknown = set(request) - set(TOKENS_REQUEST["properties"])
    if unknown:
        raise ValueError(f"the request must not have {listed(sorted(unknown))}")
    prompt, negative, steps = request.get("prompt"), request.get("negative"), request.get("steps", 20)
    if not is_text(prompt) or not (negative is None or is_text(negative)):
        raise ValueError("prompt must be a text, and negative a text or null")
    if len(prompt) + len(negative or "") > MAX_PROMPT:
        raise ValueError(f"the prompts are longer than {MAX_PROMPT} characters")
    if sum((prompt + (negative or "")).count(mark) for mark in "()[]:|") > MAX_MARKS:
        raise ValueError(
            f"the prompts have more than {MAX_MARKS} brackets, colons and bars, which takes the WebUI too long"
        )
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps must be a whole number from 1 to {MAX_STEPS}, but it is {shown(steps)}")
    return prompt, negative, parse_objects(request.get("objects")), steps


def capabilities(
    webui: str,
    models: Iterable[str],
    model: Mapping[str, Any],
    samplers: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """What is supported here.

    Args:
        webui: the name of this WebUI.
        models: the kinds of models that it can load and AsynDM supports.
        model: the loaded one: ``loaded``, ``name``, ``supported``, ``reason``.
        samplers: the WebUI's, see :func:`sampler`.
    """
    return {
        "version": __version__,
        "webui": webui,
        "samplers": [dict(one) for one in samplers],
        "models": list(models),
        "model": dict(model),
        "settings": settings_schema(),
    }


def sampler(
    name: str,
    function: Callable[..., Any] | None,
    flow: bool,
    excludes: Callable[[Solver], str | None] = lambda solver: None,
) -> dict[str, Any]:
    """Whether a sampler has a per-pixel version, and if not, why.

    Args:
        name: the WebUI's.
        function: the WebUI's, where it is known.
        flow: the loaded model is a rectified flow.
        excludes: why the WebUI's own version of a sampler is wrong with the loaded model, if it is: "it ...".
    """
    solver = solver_for(name, function, flow)
    if solver is not None:
        reason = excludes(solver)
    elif name in LEFT_OUT:
        reason = f"it {LEFT_OUT[name]}"
    elif solver_for(name, function, not flow) is not None:
        reason = "it has no meaning for the kind of model that is loaded"
    else:
        reason = "AsynDM does not know it"
    return {"name": name, "supported": reason is None, "reason": reason}
