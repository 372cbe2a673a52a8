"""All settings as the end of an address (``#prompt=...&seed=...``), and back.

Behind the ``#``, so that a server never sees them and a mask fits in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from asyndm_ext.embedded.job import COUNTED_SOLVERS
from asyndm_ext.embedded.limits import MAX_SIDE, MAX_STEPS, SCHEDULERS, SEEDS, SIDE_STEP
from asyndm_ext.settings import FIELDS, Field

LONGEST_MASK = 60_000
"""Characters of a mask in an address; what one program still opens, another has cut off."""
MOST_GUIDANCE = 15.0
RUN = "run"
"""``run=1`` in an address: draw at once."""


def written(values: Mapping[str, Any]) -> str:
    """The address's end for these controls' values, by their names, without the ``#``. A mask that is too large for an
    address is left out, and so is what has no value."""
    kept = {name: value for name, value in values.items() if value is not None}
    if not fits(values):
        kept.pop("mask")
    return urlencode({name: _text(value) for name, value in kept.items()})


def fits(values: Mapping[str, Any]) -> bool:
    """Whether an address can hold all of it."""
    return len(values.get("mask") or "") <= LONGEST_MASK


def read(text: str) -> tuple[dict[str, Any], list[str], bool]:
    """An address's end.

    Returns:
        The values by the controls' names; what stood there besides and is no such value, in words; whether it is to be
        drawn at once. An address that names no setting at all gives nothing.
    """
    values: dict[str, Any] = {}
    left_out: list[str] = []
    pairs = dict(parse_qsl(text.removeprefix("#"), keep_blank_values=True))
    run = pairs.pop(RUN, "") == "1"
    for name, written in pairs.items():
        try:
            values[name] = _READERS[name](written)
        except (KeyError, ValueError):
            left_out.append(f"{name}={written}"[:60])
    return values, left_out, run


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


# --- reading --------------------------------------------------------------------------------------------------------


def _switch(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError
        return value

    return read


def _whole(low: int, high: int, by: int = 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high or value % by:
            raise ValueError
        return value

    return read


def _of_field(spec: Field) -> Callable[[str], Any]:
    if spec.choices:
        return _one_of(spec.choices)
    if spec.limits is not None:
        return _number(*spec.limits)
    return _switch if spec.is_switch else str


_READERS: dict[str, Callable[[str], Any]] = {
    "prompt": str,
    "seed": _whole(-1, SEEDS - 1),
    "steps": _whole(1, MAX_STEPS),
    "solver": _one_of(COUNTED_SOLVERS),
    "scheduler": _one_of(SCHEDULERS),
    "guidance": _number(0, MOST_GUIDANCE),
    "width": _whole(SIDE_STEP, MAX_SIDE, SIDE_STEP),
    "height": _whole(SIDE_STEP, MAX_SIDE, SIDE_STEP),
    "enabled": _switch,
    **{spec.name: _of_field(spec) for spec in FIELDS},
}
