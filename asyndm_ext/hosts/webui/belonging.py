"""Which job a job belongs to.

ADetailer repaints parts of each finished picture with jobs of its own, in the midst of the job around them. They are
marked (``_ad_inner``), their arguments and entries of the infotext are copies of the outer job's, and their comments
reach nobody. Before the first picture and after the last one it also runs the scripts' hooks on a *copy* of the outer
job, whose dictionaries are the outer job's own: to our hooks that looks like a new job, or like the end of this one.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

_MARK = "asyndm_job"
"""Attribute of a job that has begun: its number, as whole jobs are sent to other machines in JSON. Copies have it."""


@dataclass
class _Present:
    """The job of its own that is at work, or has failed."""

    number: int = 0
    job: weakref.ref[Any] | None = None

    def get(self) -> Any | None:
        return self.job() if self.job is not None else None


_present = _Present()


def is_inner(p: Any) -> bool:
    """Whether ADetailer has made the job for itself."""
    return bool(getattr(p, "_ad_inner", False))


def begin(p: Any) -> None:
    """A job of its own begins, no inner one."""
    _present.number += 1
    _present.job = weakref.ref(p)
    setattr(p, _MARK, _present.number)


def end(p: Any) -> None:
    """The job is over; nothing happens for an inner one."""
    p.__dict__.pop(_MARK, None)
    if _present.get() is p:
        _present.job = None


def is_copy(p: Any) -> bool:
    """Whether this is a copy of the present job, made in its midst, whose hooks are none of a job."""
    outer = _present.get()
    return outer is not None and outer is not p and getattr(p, _MARK, None) == _present.number


def outer(p: Any) -> Any:
    """The job whose pictures a job's passes are part of: for an inner one the job around it, if that is ours."""
    found = _present.get() if is_inner(p) or is_copy(p) else None
    return p if found is None else found


def is_a_script_s(p: Any) -> bool:
    """Whether the job is one of several of a script (X/Y/Z plot, SD upscale, prompt matrix), which makes a picture out
    of all that it gets back. The arguments begin with the number of the chosen script."""
    arguments = getattr(p, "script_args", None)
    return bool(arguments and arguments[0])
