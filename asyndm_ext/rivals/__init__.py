"""What AsynDM is compared with: other methods that need no training, one file each, none of which knows a host.

:mod:`.zigzag` and :mod:`.cfgpp` change the sampler's step, :mod:`.seg` and :mod:`.scfg` how the network's answers
become one; :mod:`.choice` is a method with its options. Defaults are those of the AsynDM paper's Table 3. Where a
method's paper and its authors' program differ, its paper's formula is the default, and the option "published" is
the program's.
"""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {
    "zigzag": {"zigzag_inversion": 0.0, "zigzag_rounds": 1, "zigzag_published": False},
    "seg": {"seg_scale": 3.0, "seg_blur": 1.0},
    "s-cfg": {"scfg_published": False},
    "cfg++": {},
}
"""Every method's options and their defaults. CFG++ has none: its lambda comes with the CFG scale."""


def read_option(name: str, text: str) -> Any:
    """An option's value as it is written on the command line.

    Raises:
        ValueError: there is no such option, or it cannot have this value.
    """
    default = next((options[name] for options in OPTIONS.values() if name in options), None)
    if default is None:
        raise ValueError(f"no method has an option {name!r}")
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    try:
        value = type(default)(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {text}")
    return value
