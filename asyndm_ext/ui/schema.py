"""JSON schemas (draft 2020-12) of the settings and of what the routes under ``/asyndm/v1/`` take and answer.

Written by hand rather than as pydantic models: the WebUIs have pydantic 1 or 2, and the core none.
"""

from __future__ import annotations

from typing import Any

from asyndm_ext.presets import NAMES as PRESET_NAMES
from asyndm_ext.presets import PRESETS
from asyndm_ext.rivals import OPTIONS
from asyndm_ext.settings import FIELDS, Field, Settings

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SWITCH: Schema = {"type": "boolean"}
FRACTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}
MAX_STEPS = 1000
"""For the tokens of a prompt: the words that prompt editing alternates are listed step by step."""
MAX_PROMPT = 10_000
MAX_MARKS = 200
"""For the tokens of a prompt: characters of the prompt and the negative one, and how many of them are syntax."""

SOME_TEXT: Schema = {"type": ["string", "null"]}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these properties and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def many(item: Schema, description: str = "") -> Schema:
    return {"type": "array", "items": item, **({"description": description} if description else {})}


def described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def settings_schema() -> Schema:
    """Of the dictionary that a request's ``args`` take; any part of it will do.

    What it cannot say: min_area < max_area, start < end, and that a mask is a picture.
    """
    enabled = {"type": "boolean", "default": True, "description": "Off means that nothing at all happens."}
    properties = {
        "enabled": enabled,
        **{spec.name: _setting(spec) for spec in FIELDS},
        "compare": _compare(),
        "preset": _preset(),
    }
    return {"title": "AsynDM settings", "type": "object", "properties": properties, "additionalProperties": False}


def _preset() -> Schema:
    told = "; ".join(f"{one.name}: {one.help} {one.earned}" for one in PRESETS)
    return {
        "title": "Preset",
        "description": f"Settings that go together; those beside it win. {told}",
        "enum": [*PRESET_NAMES, None],
        "default": None,
    }


def _compare() -> Schema:
    methods = [name for name in OPTIONS if name != "cfg++"]  # which is a sampler of its own in the WebUI
    options: dict[str, Schema] = {}
    for name in methods:
        for option, default in OPTIONS[name].items():
            kind = SWITCH if isinstance(default, bool) else {"type": ["number", "string"]}
            options[option] = {**kind, "default": default}
    named: Schema = {"type": "string", "enum": methods}
    return {
        "title": "Compare",
        "description": "Another method, for comparisons: it guides beside AsynDM, or in its place at strength 0.",
        "anyOf": [named, record({"method": named}, options), {"type": "null"}],
        "default": None,
    }


def _setting(spec: Field) -> Schema:
    schema: Schema = {"title": spec.label, "description": spec.help, "default": Settings().to_dict()[spec.name]}
    if spec.name == "objects":
        return {**schema, **_objects()}
    if spec.choices:
        return {**schema, "enum": list(spec.choices)}
    if spec.limits is not None:
        return {**schema, "type": "number", "minimum": spec.limits[0], "maximum": spec.limits[1]}
    if spec.is_switch:
        return {**schema, "type": "boolean"}
    return {**schema, "type": "string", **({"contentEncoding": "base64"} if spec.name == "mask" else {})}


def _objects() -> Schema:
    strength = {"anyOf": [FRACTION, {"type": "null"}]}
    occurrence = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
    one = record({"name": TEXT}, {"strength": strength, "occurrence": occurrence})
    by_name = {"type": "object", "additionalProperties": strength}
    return {"anyOf": [TEXT, many({"anyOf": [TEXT, one]}), by_name, {"type": "null"}]}


NORMALISED: Schema = {"type": "object", "description": "All settings, as the schema of the settings names them."}

VALIDATE_ANSWER = {
    "oneOf": [
        record({"ok": {"const": True}, "settings": NORMALISED, "infotext": {"type": "object"}}),
        record({"ok": {"const": False}, "message": TEXT}),
    ]
}

CAPABILITIES_ANSWER = record(
    {
        "version": TEXT,
        "webui": described(TEXT, "The WebUI that this is."),
        "samplers": many(
            record({"name": TEXT, "supported": SWITCH, "reason": SOME_TEXT}),
            "Those of the WebUI's list, for the kind of model that is loaded.",
        ),
        "models": many(TEXT, "Kinds of models that are supported."),
        "model": record(
            {"loaded": SWITCH, "name": SOME_TEXT, "supported": {"type": ["boolean", "null"]}, "reason": SOME_TEXT}
        ),
        "settings": described({"type": "object"}, "JSON schema of the settings."),
    }
)

TOKENS_REQUEST = record(
    {"prompt": {**TEXT, "maxLength": MAX_PROMPT}},
    {
        "negative": described({**SOME_TEXT, "maxLength": MAX_PROMPT}, "Its tokens are listed too."),
        "objects": described(_objects(), "As in the settings; without, those that would be found automatically."),
        "steps": described(
            {"type": "integer", "minimum": 1, "maximum": MAX_STEPS, "default": 20}, "For prompt editing."
        ),
    },
)

COLUMNS: Schema = many(COUNT, "Rows of the text conditioning: CLIP's, 77 per chunk, the start token first, then T5's.")
_TEXT_AT = {
    "until": described({"type": "integer"}, "The last step at which prompt editing leaves this text."),
    "text": TEXT,
    "tokens": many(record({"column": COUNT, "id": {"type": ["integer", "null"]}, "text": TEXT})),
    "words": many(record({"word": TEXT, "columns": COLUMNS})),
}
_FOUND = many(record({"name": TEXT, "columns": COLUMNS}))

TOKENS_ANSWER = record(
    {
        "parts": many(
            record({"weight": NUMBER, "texts": many(record({**_TEXT_AT, "objects": _FOUND}))}),
            "The prompt's parts between AND.",
        ),
        "objects": many(TEXT, "The objects that have columns in the prompt."),
        "missing": many(TEXT, "The objects asked for that have none; a job with them would stop."),
        "negative": {"anyOf": [{"type": "null"}, many(record(_TEXT_AT))]},
    }
)

LAST_RUN_ANSWER = {
    "anyOf": [
        {"type": "null"},
        record(
            {
                "settings": NORMALISED,
                "passes": many(
                    record(
                        {
                            "kind": {"enum": ["txt2img", "img2img", "hires", "adetailer"]},
                            "iteration": described(COUNT, "Number of the batch."),
                            "sampler": TEXT,
                            "unit": {"enum": ["sigma", "timestep"]},
                            "size": {**many(COUNT), "minItems": 2, "maxItems": 2, "description": "Latent (H, W)."},
                            "objects": many(many(TEXT), "Per image, what was found."),
                            "finished": described(SWITCH, "Whether the pass came to its end."),
                            "steps": many(
                                record(
                                    {
                                        "step": COUNT,
                                        "base": described(NUMBER, "The WebUI's own level in this step."),
                                        "images": many(
                                            record(
                                                {
                                                    "smallest": described(NUMBER, "Level of the furthest pixel."),
                                                    "largest": described(NUMBER, "Level of the slowest pixel."),
                                                    "slow": described(FRACTION, "Fraction of slow pixels."),
                                                    "mask": described(
                                                        SOME_TEXT,
                                                        "PNG in base64 at the latent's size, white is strength 1; "
                                                        "null where it was not asked for or is not kept any more.",
                                                    ),
                                                }
                                            )
                                        ),
                                    }
                                )
                            ),
                        }
                    )
                ),
            }
        ),
    ]
}
