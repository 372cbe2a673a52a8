"""Whatever a request, an infotext, a prompt or a mask holds: a result or a message of ours, never an error from inside.

A bounded number of examples by default. ``ASYNDM_FUZZ=5000 pytest tests/unit/test_fuzz.py`` tries as many of each kind,
other ones every time.
"""

from __future__ import annotations

import base64
import io
import json
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image
from support.host_infotext import parsed, written
from support.wild import anything, arguments, dictionaries, nested, prompts, texts
from support.wild import objects as wild_objects

from asyndm_ext.prompt.finder import automatic_objects
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects
from asyndm_ext.prompt.syntax import plain_text
from asyndm_ext.region.mask_image import decode
from asyndm_ext.settings import FIELDS, Settings, SettingsError, is_enabled
from asyndm_ext.ui import api, infotext, schema

MANY = int(os.environ.get("ASYNDM_FUZZ", "0"))
fuzz = settings(
    max_examples=MANY or 150,
    derandomize=not MANY,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
VALIDATE = Draft202012Validator(schema.VALIDATE_ANSWER)
SETTINGS = Draft202012Validator(schema.settings_schema())


def writable(text: str) -> str:
    text.encode()
    assert len(text) < 2000, "a message, not the request again"
    return text


def in_json(value: Any) -> Any:
    """As the WebUIs send it: no NaN, and no half characters."""
    return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


@fuzz
@given(dictionaries)
@example({"strength": 10**400})
@example({"threshold": -(10**400)})
@example({"objects": {"cat": 10**400}})
@example({"objects": "cat#" + "9" * 5000})
@example({"objects": ["\ud800"]})
@example({"mask": "\ud800"})
@example({"mask": "\0"})
@example({"objects": "cat:-0"})
@example({"\ud800": 1, "x" * 5000: 2})
def test_a_dictionary(values: dict[str, Any]) -> None:
    """The route and the job are of one mind about it, and whatever the schema refuses is refused."""
    answer = in_json(api.validate(values))
    VALIDATE.validate(answer)
    try:
        read = Settings.from_dict(values)
    except SettingsError as error:
        assert writable(str(error)).startswith("AsynDM: ") and answer == {"ok": False, "message": str(error)}
        return
    assert answer["ok"] and Settings.from_dict(answer["settings"]) == read
    if not isinstance(values.get("objects"), tuple):
        assert SETTINGS.is_valid({k: v for k, v in values.items() if k != "objects"})
    assert is_enabled([values]) is read.enabled, "what is read as on is on, and the other way round"


@pytest.mark.parametrize("name", [*(spec.name for spec in FIELDS), "enabled", "unknown"])
@pytest.mark.parametrize("value", [nested(900), {"cat": nested(900)}, "x:" * 10**6, [["x"] * 1000] * 1000])
def test_what_is_deep_or_large_is_shown_shortened(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict({name: value, **({"region": "mask"} if name == "mask" else {})})
    writable(str(caught.value))


@fuzz
@given(arguments)
@example([True, "cat", 10**400])
@example([1])
@example(["off"])
def test_positional_arguments(args: list[Any]) -> None:
    try:
        read = Settings.from_args(args)
    except SettingsError as error:
        writable(str(error))
        return
    assert is_enabled(args) is read.enabled


@fuzz
@given(arguments)
def test_a_job_s_infotext(args: list[Any]) -> None:
    """What a job with these arguments records never fails, and is its own, or nothing."""
    p = SimpleNamespace(extra_generation_params={"Other": 1}, all_prompts=["a cat", ""])
    infotext.record(p, args)
    assert p.extra_generation_params.pop("Other") == 1
    assert all(key.startswith("AsynDM ") for key in p.extra_generation_params)
    in_json(p.extra_generation_params)


@fuzz
@given(wild_objects)
@example("cat#²")
@example("cat\0")
@example("a" + " " * 19_000 + "b")
@example("#" * 19_000 + "1")
@example("cat:1_0")
@example("cat:")
@example("a" * 100_000)
def test_objects(value: Any) -> None:
    try:
        specs = parse_objects(value)
    except ValueError as error:
        writable(str(error))
        return
    for spec in specs:
        assert ObjectSpec.written(str(spec)) == spec, "it reads back as itself"
    assert parse_objects(", ".join(map(str, specs))) == specs


@fuzz
@given(st.dictionaries(st.sampled_from([spec.infotext_key for spec in FIELDS]) | texts, texts | st.just("nan")))
@example({"AsynDM strength": "nan"})
@example({"AsynDM strength": "1e999", "AsynDM soft": "TRUE", "AsynDM region": "left"})
def test_a_foreign_infotext_sets_controls_to_what_they_can_be(params: dict[str, str]) -> None:
    """Somebody else's infotext, or one written by hand: a control gets a value of its own kind or stays as it is."""
    assert_controls_can_be(params)


def assert_controls_can_be(params: dict[str, str]) -> None:
    for spec in FIELDS:
        value = infotext.pasted(spec.name)(params)
        if value is None or spec.name == "objects":
            continue
        assert type(value) is type(spec.default)
        assert not spec.choices or value in spec.choices
        if spec.limits is not None:
            assert spec.limits[0] <= value <= spec.limits[1]


@fuzz
@given(st.text(max_size=200))
@example('AsynDM strength: 0.7, AsynDM objects: "')
def test_any_infotext_is_parsed_and_pasted(text: str) -> None:
    for params in (parsed(text), parsed(written("a cat", {"Steps": 1, "Sampler": 2, "AsynDM strength": text}))):
        assert_controls_can_be(params)


@fuzz
@given(prompts)
@example("(" * 20_000)
@example("[a:" * 20_000)
@example("\\(" * 20_000)
@example("<lora:" * 20_000)
@example(":1 " * 20_000)
@example("\ud800 cat")
def test_prompts(prompt: str) -> None:
    found = automatic_objects(prompt)
    assert len(found) <= 8 and all(name in plain_text(prompt) for name in found)


# --- masks ----------------------------------------------------------------------------------------------------------


def _files() -> list[bytes]:
    files = []
    grey = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)
    for mode in ("L", "RGB", "RGBA", "1", "P", "I", "F", "CMYK", "LA"):
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA", "DDS", "SPIDER", "AVIF"):
            file = io.BytesIO()
            try:
                Image.fromarray(grey).convert(mode).save(file, kind)
            except (OSError, KeyError, ValueError):  # this format has no such mode, or Pillow was built without it
                continue
            files.append(file.getvalue())
    return files


FILES = _files()


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A picture file of which some bytes are others, or missing."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from([40, 200, 10**6])))))] = draw(
            st.integers(0, 255)
        )
    return bytes(data[: draw(st.integers(1, len(data)))]) if draw(st.booleans()) else bytes(data)


@fuzz
@given(broken() | st.binary(max_size=200))
@pytest.mark.filterwarnings("ignore")
def test_masks(data: bytes) -> None:
    try:
        mask = decode(base64.b64encode(data).decode())
    except ValueError as error:
        assert str(error).startswith("the mask is not a picture") and writable(str(error))
        return
    assert mask.mode == "L" and mask.width * mask.height > 0


@fuzz
@given(texts | st.text("ABCabc012+/= \n", max_size=60))
@example("data:")
@example("data:image/png;base64")
def test_masks_that_are_no_base64(text: str) -> None:
    with pytest.raises(ValueError, match="the mask is not a picture"):
        decode(text)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (100, 0), (32768, 127), (65535, 255)])
def test_masks_of_16_bits(value: int, grey: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(file, "PNG")
    assert np.unique(np.array(decode(base64.b64encode(file.getvalue()).decode()))).tolist() == [grey]


def test_a_mask_of_gigabytes_is_refused() -> None:
    file = io.BytesIO()
    Image.new("1", (8192, 8192)).save(file, "PNG")
    with pytest.raises(ValueError, match="it has 8192 x 8192 pixels, and 4096 x 4096 are the most"):
        decode(base64.b64encode(file.getvalue()).decode())


@fuzz
@given(anything)
def test_the_schema_of_the_settings_takes_no_more_than_the_settings(value: Any) -> None:
    """A worker that checks a request by the schema sends nothing that would stop a job (but for the mask)."""
    assume(value == value)  # NaN, which JSON has not, is neither above nor below a limit of a schema
    for spec in FIELDS:
        if spec.name == "mask" or not SETTINGS.is_valid({spec.name: value}):
            continue
        try:
            Settings.from_dict({spec.name: value})
        except SettingsError as error:
            assert spec.name in ("objects", "min_area", "max_area", "start", "end"), error
