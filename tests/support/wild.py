"""Settings as requests may bring them: right ones, nearly right ones, and anything else that JSON can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.settings import FIELDS, MASK_SOURCES, PASSES, REGIONS, SHOWN
from support.settings import MASK, valid

NAMES = ("enabled", *(spec.name for spec in FIELDS))

texts = st.text(alphabet=st.characters(), max_size=12)
"""Half characters (lone surrogates) too, which JSON can hold."""
numbers = (
    st.floats() | st.integers() | st.integers(10**300, 10**400) | st.sampled_from([0, 1, 0.5, -1, 1e308, 1e-320, -0.0])
)
scalars = st.none() | st.booleans() | numbers | texts
anything: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


choices = st.sampled_from([*CURVES, *REGIONS, *MASK_SOURCES, *PASSES, *SHOWN])
written = st.from_regex(r"[a-c ]{0,4}(#[0-9²٣]{0,3})?(:[-+0-9.einfa_]{0,6})?", fullmatch=True)
objects = (
    st.sampled_from(["cat", "cat, sandwich", "cat:0.5", ["cat"], [{"name": "cat"}], {"cat": 0.3}, "", [], None])
    | written
    | st.lists(
        written | st.fixed_dictionaries({"name": written | anything}, optional={"strength": anything}), max_size=4
    )
    | st.dictionaries(written, anything, max_size=3)
    | anything
)
pictures = st.sampled_from([MASK, "", MASK[:50], "data:image/png;base64," + MASK, "data:", "=" * 9, "é", "\ud800"])
value = anything | choices | pictures | st.floats(0, 1) | st.sampled_from([nested(50)])


@st.composite
def _one_wrong(draw: st.DrawFn) -> dict[str, Any]:
    """Right settings (any of them), of which up to two are something else."""
    right = draw(valid)
    right["objects"] = draw(st.sampled_from(["", "cat", "sandwich, cat:0.3"]))
    names = draw(st.sets(st.sampled_from(NAMES), max_size=8))
    chosen = {name: right[name] for name in names}
    for name in draw(st.lists(st.sampled_from(NAMES) | texts, max_size=2)):
        chosen[name] = draw(objects if name == "objects" else value)
    return chosen


dictionaries = _one_wrong() | st.dictionaries(st.sampled_from(NAMES) | texts, value, max_size=5)
"""What a request may send as the one argument."""
arguments = st.lists(value | objects | dictionaries, max_size=len(NAMES) + 2)
"""What it may send as positional ones."""

_syntax = ["(", ")", "[", "]", "\\", ":", "|", "<", ">", "AND", "BREAK", "a", "cat", "of", "by", "0.5", ",", "-", "'"]
prompts = st.lists(st.sampled_from(_syntax) | st.text(max_size=4), max_size=60).map(" ".join) | st.text(max_size=300)
"""The WebUI's syntax in any order, and any text."""
