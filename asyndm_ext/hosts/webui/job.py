"""One sampling pass with AsynDM: the job's sampler function, replaced while it runs.

The host swallows exceptions of script callbacks. So the callback only puts :func:`install`'s function in the
sampler's place; everything that can go wrong happens inside that function, where the host reports it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import k_diffusion.sampling
import tqdm
from modules import shared
from torch import Tensor

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.host import current
from asyndm_ext.hosts.webui.tokens import ObjectColumns, resolve_objects
from asyndm_ext.regions import FixedRegion, ObjectRegion, Region
from asyndm_ext.run import Run, StepRecord
from asyndm_ext.schedule import PixelSchedule
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS, Solver
from asyndm_ext.ui import infotext

watchers: list[Callable[[StepRecord], None]] = []
"""Called at the end of every step of every job (previews, tests)."""


def install(p: Any, args: Sequence[Any]) -> None:
    """Put the AsynDM version in the place of this job's sampler function, until it has run once."""
    sampler = p.sampler
    # The hook can come twice for one pass, and an img2img sampler serves all batches of a job.
    host_function = getattr(sampler.func, "asyndm_host_function", sampler.func)

    @functools.wraps(host_function)
    def sample(model: Any, x: Tensor, *positional: Any, **keywords: Any) -> Tensor:
        sampler.func = host_function
        p.asyndm_has_run = True
        bound = inspect.signature(host_function).bind(model, x, *positional, **keywords)
        bound.apply_defaults()
        return _run(p, Settings.from_args(args), model, x, bound.arguments)

    sample.asyndm_host_function = host_function  # type: ignore[attr-defined]
    sampler.func = sample


def _run(p: Any, settings: Settings, model: Any, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    solver = _solver(p.sampler)
    arguments = {**arguments, **{name: getattr(shared.opts, setting) for name, setting in solver.settings}}
    if solver.space == "timestep":
        arguments["alphas_cumprod"] = shared.sd_model.alphas_cumprod
    if solver.space == "timestep" and solver.own_schedule is None and len(arguments["timesteps"]) < 2:
        return x  # so little denoising strength that the host itself makes no step
    base = solver.schedule(arguments)
    images, _, height, width = x.shape
    shape = (images, 1, height, width)
    host = current()
    objects = resolve_objects(p, host.text_encoder(), settings.objects) if settings.region == "objects" else None
    if objects is not None:
        infotext.note_found(p, objects.names)
    denoiser = host.pass_model(model, arguments, solver, images, objects)
    with denoiser.attached():
        run = Run(
            denoiser,
            PixelSchedule(base, shape, settings.curve),
            _region(settings, objects, shape),
            x,
            # Looked up at the draw: the host puts the job's own generator behind this name.
            randn_like=lambda like: k_diffusion.sampling.torch.randn_like(like),  # noqa: PLW0108
            callback=arguments.get("callback"),
            table=denoiser.noise,
            watch=_watch,
            progress=lambda steps: tqdm.tqdm(steps, disable=arguments.get("disable")),
            noise_sampler=_brownian_tree(solver, x, arguments),
        )
        return solver.sample(run, x, **solver.chosen(arguments))


def _solver(sampler: Any) -> Solver:
    name = sampler.config.name
    if name not in SOLVERS:
        raise AsynDMError(f"AsynDM does not support the sampler {name!r} yet; use one of: {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _brownian_tree(solver: Solver, x: Tensor, arguments: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The tree that the host made, or, without batch determinism, the one that its function would make itself."""
    if not solver.brownian:
        return None
    if arguments["noise_sampler"] is not None:
        return arguments["noise_sampler"]
    sigmas = arguments["sigmas"]
    return k_diffusion.sampling.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max())


def _region(settings: Settings, objects: ObjectColumns | None, shape: tuple[int, int, int, int]) -> Region:
    if objects is None:
        return FixedRegion.everything(shape, settings.strength)
    return ObjectRegion(shape, [settings.strength] * objects.count, settings.threshold)


def _watch(record: StepRecord) -> None:
    for watcher in watchers:
        watcher(record)
