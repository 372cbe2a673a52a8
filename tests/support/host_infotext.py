"""The hosts' rules for infotexts, restated: how a job's parameters are written into a picture and read back.

Writing: a value with a comma, a colon or a line break is put into quotes as JSON. Reading: the last line, if it has at
least three entries; a value in quotes is read as JSON; one like 512x768 becomes two entries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

ENTRY = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE = re.compile(r"^(\d+)x(\d+)$")


def quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",\n:") else text


def written(prompt: str, entries: Mapping[str, object]) -> str:
    """The infotext of a picture; entries without a value are left out."""
    line = ", ".join(k if k == v else f"{k}: {quoted(v)}" for k, v in entries.items() if v is not None)
    return f"{prompt}\nNegative prompt: \n{line}".strip()


def parsed(infotext: str) -> dict[str, str]:
    """The entries, without the prompts."""
    last = infotext.strip().split("\n")[-1]
    found = ENTRY.findall(last)
    if len(found) < 3:
        return {}
    entries = {}
    for key, value in found:
        text = _unquoted(value)
        size = SIZE.match(text)
        if size:
            entries[f"{key}-1"], entries[f"{key}-2"] = size.groups()
        else:
            entries[key] = text
    return entries


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
