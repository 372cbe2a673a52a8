"""The page's own styles and scripts."""

from pathlib import Path

_HERE = Path(__file__).parent


def text_of(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
