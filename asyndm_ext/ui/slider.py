"""Two pictures one over the other, with a slider between them: below a WebUI's gallery, and in the studio."""

from __future__ import annotations

from html import escape

_MOVE = "document.documentElement.style.setProperty('--asyndm-split', this.value + '%')"
"""On the page and not on the box: where it stands outlives the pictures, which come anew."""


def box(inside: str, size: tuple[int, int] | None = None) -> str:
    """Where the pictures lie, or something in their place; ``size`` in pixels, if it is known."""
    style = f' style="aspect-ratio: {size[0]} / {size[1]}; --shape: {size[0] / size[1]:.4f}"' if size else ""
    return f'<div class="asyndm-compare"{style}>{inside}</div>'


def html(before: str, after: str, titles: tuple[str, str], tags: tuple[str, str], size: tuple[int, int] | None) -> str:
    """The plain picture over the other, cut off at a slider. It covers the pictures, so that the mouse, a finger and
    the arrow keys move it.

    Args:
        before, after: addresses of the plain picture and of the other; empty where the page fills them in.
        titles: of the two, for those who do not see them.
        tags: what stands at their upper corners.
    """

    def image(source: str, title: str, kind: str) -> str:
        address = f'src="{source}" ' if source else ""
        return f'<img {address}class="asyndm-{kind}" alt="{escape(title)}">'

    return box(
        f"{image(after, titles[1], 'after')}{image(before, titles[0], 'before')}"
        f'<span class="asyndm-tag asyndm-tag-before" aria-hidden="true">{escape(tags[0])}</span>'
        f'<span class="asyndm-tag asyndm-tag-after" aria-hidden="true">{escape(tags[1])}</span>'
        f'<input type="range" min="0" max="100" value="50" oninput="{_MOVE}" aria-label="Where the plain picture ends'
        ' and that of AsynDM begins"><i class="asyndm-handle" aria-hidden="true"></i>',
        size,
    )
