"""What differs between the WebUIs, and which one this is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.hosts.webui.compare import Compared
from asyndm_ext.hosts.webui.finders import Finder
from asyndm_ext.hosts.webui.kind import webui_kind
from asyndm_ext.hosts.webui.neighbours import Neighbours
from asyndm_ext.hosts.webui.tokens import ObjectColumns
from asyndm_ext.solvers import Solver


class PassModel(Protocol):
    """The guided model of one sampling pass (:class:`asyndm_ext.run.Model`), with hooks that live in ``attached``."""

    noise: NoiseTable | None
    """The network's noise levels, known while attached."""
    patch: int
    """Side, in latent pixels, of what has one timestep: a token of a transformer, or 1; known while attached."""
    neighbours: Neighbours
    """What other extensions do to its calls."""

    def attached(self) -> AbstractContextManager[Any]:
        """Hooks on the host live inside this block only."""

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor: ...

    def attention(self) -> Tensor | None: ...


class Host(Protocol):
    """A WebUI as the job sees it."""

    name: str
    models: tuple[str, ...]
    """Kinds of models that it can load and AsynDM supports."""

    def model(self, load: bool = False) -> Any | None:
        """The loaded model, or None where there is none.

        Args:
            load: load the chosen one if there is none yet, where the WebUI can do that outside a job.
        """

    def check(self, model: Any) -> None:
        """Raises UnsupportedModel: the model is of a kind that AsynDM cannot work with."""

    def excludes(self, solver: Solver) -> str | None:
        """Why a sampler does not go with the loaded model, "it ..."; None where it does."""

    def pass_model(
        self,
        denoiser: Any,
        arguments: Mapping[str, Any],
        solver: Solver,
        images: int,
        objects: ObjectColumns | None,
        effect: bool = False,
        compared: Compared | None = None,
    ) -> PassModel:
        """The guided model of the pass that is about to run.

        Args:
            denoiser: the job's CFG denoiser, what the host's sampler function was called with.
            arguments: that function's arguments by name.
            solver: what will call the model.
            images: batch size.
            objects: whose attention to capture, or None.
            compared: another method that guides, too, or None.
            effect: tell, in place of the attention, where the prompt makes a difference.

        Raises:
            NotApplied: the loaded model is of a kind that is not supported.
        """

    def is_flow(self) -> bool:
        """Whether the loaded model is a rectified flow: sigma from 1 to 0."""

    def percent_to_sigma(self) -> Callable[[float], float] | None:
        """The loaded model's sigma at a share of the way down, for samplers that ask; None where none does."""

    def finder(self, p: Any | None = None) -> Finder:
        """Tells where the tokens of objects are in the loaded model's conditioning.

        Args:
            p: the job, if there is one and its prompts have been encoded.

        Raises:
            NotApplied: the model's text encoder is not known.
            AsynDMError: it is set to tokenize in a way that is not.
        """


@functools.cache
def current() -> Host:
    """The WebUI that this process is. Raises AsynDMError: one that is not supported."""
    if webui_kind() == "forge":
        from asyndm_ext.hosts.forge.host import Forge

        return Forge()
    from asyndm_ext.hosts.a1111.host import A1111

    return A1111()
