"""Values in messages: whatever a request has brought, shown in a few characters and without a new error."""

from __future__ import annotations

import math
import reprlib
from typing import Any, TypeGuard

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = 60


def shown(value: Any) -> str:
    """The value as Python writes it, shortened; half characters (lone surrogates) as escapes."""
    try:
        return _REPR.repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits
        return f"<{type(value).__name__}>"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none. An int may be too large for a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that can be written somewhere: JSON also brings half characters."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
