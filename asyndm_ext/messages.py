"""Values in messages: whatever a request has brought, shown in a few characters and without a new error."""

from __future__ import annotations

import itertools
import math
import re
import reprlib
from collections.abc import Collection
from typing import Any, TypeGuard

_LISTED = 3
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = 60


def shown(value: Any) -> str:
    """The value as Python writes it, shortened; half characters (lone surrogates) as escapes, -0 as 0."""
    try:
        return _REPR.repr(value + 0.0 if isinstance(value, float) else value)
    except (ValueError, RecursionError):  # an int of thousands of digits
        return f"<{type(value).__name__}>"


def listed(values: Collection[Any]) -> str:
    """The first few of the values, each as :func:`shown`."""
    rest = "" if len(values) <= _LISTED else f" and {len(values) - _LISTED} more"
    return ", ".join(map(shown, itertools.islice(values, _LISTED))) + rest


def plain(number: float) -> float:
    """The number as a float; 0 for -0, which equals it and would be shown as another one."""
    return float(number) + 0.0


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none. An int may be too large for a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that can be written somewhere: JSON also brings half characters, and NUL."""
    return isinstance(value, str) and _UNWRITABLE.search(value) is None
