"""The per-pixel solver of a job's sampler, or why there is none; and where that sampler draws its noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import k_diffusion.sampling
from torch import Tensor

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.solvers import LEFT_OUT, Solver
from asyndm_ext.solvers.resolve import host_function, solver_for

_DEFAULT = "default_noise_sampler"
_TREE = "BrownianTreeNoiseSampler"
_PACKAGES = {"sampling", "k_diffusion"}


def pass_solver(label: str, function: Callable[..., Any], flow: bool, denoiser: Any) -> Solver:
    """What does, pixel by pixel, what the host's sampler does; arguments as of :func:`solver_for`.

    Raises:
        NotApplied: nothing does.
    """
    solver = solver_for(label, function, flow, denoiser)
    if solver is not None:
        return solver
    if solver_for(label, function, not flow, denoiser) is not None:
        raise NotApplied(f"the sampler {label!r} has no meaning for the kind of model that is loaded")
    why = f", which {LEFT_OUT[label]}" if label in LEFT_OUT else ""
    raise NotApplied(f"there is no per-pixel version of the sampler {label!r}{why}")


def noise_source(function: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Fresh normals like a tensor, from where the host's sampler function draws them, so that seeds match.

    Hosts put the job's own generator behind the name ``torch`` of a k-diffusion; but there may be more than one, some
    of whose samplers draw from torch's generator instead. So it is looked up what the function itself uses.
    """
    core = host_function(function)
    reached = list(_reached(core))
    for names, space in reached:
        if _DEFAULT in names and _DEFAULT in space:
            return _default_of(space)
    for names, space in reached:
        if {"torch", "randn_like"} <= set(names) and not _PACKAGES & set(names):
            return _torch_of(space)
    sampling = _k_diffusion_of(core)
    return _default_of(sampling) if _DEFAULT in sampling else _torch_of(sampling)


# Names are looked up at the draw.


def _default_of(space: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    return lambda like: space[_DEFAULT](like)(None, None)


def _torch_of(space: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    return lambda like: space["torch"].randn_like(like)  # noqa: PLW0108


def brownian_tree(
    solver: Solver, function: Callable[..., Any], x: Tensor, arguments: Mapping[str, Any]
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The tree that the host made, or, without batch determinism, the one that its function would make itself.

    Args:
        function: the host's sampler function. x: its latent. arguments: all of them, by name.
    """
    if not solver.brownian:
        return None
    if arguments.get("noise_sampler") is not None:
        return arguments["noise_sampler"]
    core = host_function(function)
    tree = core.__globals__.get(_TREE) if core is not None else None
    tree = tree or _k_diffusion_of(core)[_TREE]
    # Where the random numbers come from; functions say so where the tree can be told.
    options = {"cpu": True} if "cpu" in inspect.signature(tree).parameters else {}
    sigmas = arguments["sigmas"]
    return tree(x, sigmas[sigmas > 0].min(), sigmas.max(), **options)


def _k_diffusion_of(core: Any) -> Mapping[str, Any]:
    """The k-diffusion that a sampler function works with: its own module, or one that its module knows."""
    space: Mapping[str, Any] = core.__globals__ if core is not None else {}
    if _TREE in space and _DEFAULT in space and getattr(space[_TREE], "__module__", None) == space.get("__name__"):
        return space
    for known in (space.get("sampling"), getattr(space.get("k_diffusion"), "sampling", None)):
        if hasattr(known, _TREE):
            return vars(known)
    return vars(k_diffusion.sampling)


def _reached(core: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The names that a function uses and its module, then those of functions that it hands over to in it."""
    seen: list[Any] = []
    waiting = [] if core is None else [core]
    while waiting:
        one = waiting.pop(0)
        seen.append(one)
        yield one.__code__.co_names, one.__globals__
        for name in one.__code__.co_names:
            other = host_function(one.__globals__.get(name))
            if other is not None and other not in seen and other not in waiting:
                waiting.append(other)
