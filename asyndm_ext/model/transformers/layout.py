"""What AsynDM has to know of a diffusion transformer; one for each network, made in a file for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from asyndm_ext.model.dit_time import TokenTime

Part = Literal["queries", "keys", "text_keys", "all_queries", "all_keys"]
"""Of the picture's tokens, of the text's, or of both, the text's first."""


@dataclass(frozen=True)
class Shown:
    """Queries or keys of an attention as they leave a module: in heads, normed, not yet rotated.

    Attributes:
        parts: what the module's output is, or the members of the tuple that it returns; None for what is not wanted.
        heads_first: whether that is ``(N, heads, L, d)`` or ``(N, L, heads, d)``, L of several dimensions perhaps.
    """

    module: nn.Module
    parts: tuple[Part | None, ...]
    heads_first: bool = False


Attention = tuple[Shown, ...]
"""All that an attention shows: the picture's and the text's together (joint), or the picture's queries and the text's
keys alone (cross-attention)."""


@dataclass(frozen=True)
class Layout:
    """A network's.

    Attributes:
        patch: side of a token in latent pixels.
        time: makes the hooks that give each token its own timestep.
        attentions: those of the picture to the text, in the network's order.
        positions: the module that makes the rotary matrices ``(N, 1, L, d/2, 2, 2)`` of all tokens, the text's first;
            None where the attention to the text knows no positions.
        picture: a module whose output ``(N, L, ...)`` is of the picture's tokens and of those that follow it; needed
            where an attention shows all at once.
    """

    patch: int
    time: Callable[[], TokenTime]
    attentions: tuple[Attention, ...]
    positions: nn.Module | None = None
    picture: nn.Module | None = None
