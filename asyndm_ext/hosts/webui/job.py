"""One sampling pass with AsynDM: the job's sampler function, replaced while it runs.

The host swallows exceptions of script callbacks. So the callback only puts :func:`install`'s function in the
sampler's place; everything that can go wrong happens inside that function, where the host reports it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tqdm
from modules import shared
from torch import Tensor

from asyndm_ext.clock.schedule import PixelSchedule, UnusableSchedule
from asyndm_ext.hosts.webui import belonging, hires, mask, options, pictures, plain_pictures, preview, refusal
from asyndm_ext.hosts.webui.compare import Compared
from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.frames import Frames
from asyndm_ext.hosts.webui.host import current
from asyndm_ext.hosts.webui.plain_pass import rehearsal, remembered, show_progress
from asyndm_ext.hosts.webui.solvers import brownian_tree, noise_source, pass_solver
from asyndm_ext.hosts.webui.tokens import resolve_objects
from asyndm_ext.region.regions import AverageAttention, NoAttention, PerPatch, Region, region_for
from asyndm_ext.run import FromHost, Run, StepRecord
from asyndm_ext.settings import Settings, SettingsError, is_enabled
from asyndm_ext.ui import infotext
from asyndm_ext.ui.coverage import Coverage
from asyndm_ext.ui.last_run import LastRun, Pass
from asyndm_ext.ui.overlap import Overlap

watchers: list[Callable[[StepRecord], None]] = []
"""Called at the end of every step of every job (previews, tests)."""

last_run = LastRun()
"""What the last job did, for the API."""


def is_wanted(p: Any, args: Sequence[Any]) -> bool:
    """Whether a job is one for AsynDM, or the batch that it is at. ADetailer repaints faces with jobs of its own, left
    alone unless asked."""
    if not is_enabled(args) or plain_pictures.is_plain(belonging.outer(p)):
        return False
    if not belonging.is_inner(p):
        return True
    try:
        return Settings.from_args(args).adetailer
    except SettingsError:
        return False  # the outer job has failed with the message already


def begin(p: Any, args: Sequence[Any]) -> None:
    """A job begins: one for AsynDM, or not, and then nothing of ours is to be in its infotext."""
    if belonging.is_copy(p):  # of a job that is at work; its notes are there already
        return
    if belonging.is_inner(p):
        outer = belonging.outer(p)
        if outer is not p and p.extra_generation_params is outer.extra_generation_params:
            p.extra_generation_params = dict(p.extra_generation_params)
    plain_pictures.end(p)  # of a job that failed and begins again
    if not is_wanted(p, args):
        infotext.forget(p)
        return
    if not belonging.is_inner(p):  # whose passes are part of the job around them
        belonging.begin(p)
        last_run.forget()
    for name in ("asyndm_has_run", "asyndm_left_out"):  # a script may sample the same job again
        p.__dict__.pop(name, None)
    infotext.record(p, args)
    if not belonging.is_inner(p) and _is_compared(args):
        plain_pictures.begin(p)


def _is_compared(args: Sequence[Any]) -> bool:
    try:
        return Settings.from_args(args).compare_plain
    except SettingsError:
        return False  # the sampling function stops the job


def install(p: Any, args: Sequence[Any]) -> None:
    """Put the AsynDM version in the place of this job's sampler function, until it has run once."""
    sampler = p.sampler
    pictures.begin(p)
    # The hook can come twice for one pass, and an img2img sampler serves all batches of a job.
    host_function = getattr(sampler.func, "asyndm_host_function", sampler.func)

    @functools.wraps(host_function)
    def sample(model: Any, x: Tensor, *positional: Any, **keywords: Any) -> Tensor:
        sampler.func = host_function
        try:
            return _sampled(p, args, host_function, model, x, positional, keywords)
        except (AsynDMError, SettingsError) as error:
            message = str(error)
        return refusal.stop(p, message, x)  # out here, so that the host has no second traceback to write

    sample.asyndm_host_function = host_function  # type: ignore[attr-defined]
    sampler.func = sample


def _sampled(
    p: Any,
    args: Sequence[Any],
    host_function: Callable[..., Tensor],
    model: Any,
    x: Tensor,
    positional: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Tensor:
    """The pass's latent, with AsynDM if that is possible; arguments as the host calls its sampler function."""
    settings = Settings.from_args(args)
    if _is_left_out(p, settings):
        hires.foresee(p, settings, x)
        return host_function(model, x, *positional, **keywords)
    p.asyndm_has_run = True
    bound = inspect.signature(host_function).bind(model, x, *positional, **keywords)
    bound.apply_defaults()
    restore = remembered(p, model)
    one = None
    try:
        one = _Pass(p, settings, model, x, bound.arguments)
        hires.foresee(p, settings, x)
        latent = one.sample()
        plain_pictures.applied(p)
        return latent
    except NotApplied as reason:
        restore()  # it may have begun
        hires.foresee(p, settings, x)
        _go_without(p, str(reason))
    except AsynDMError as error:
        # ADetailer's errors stop nothing: its picture stayed as it was, and the infotext said that all is well.
        if not belonging.is_inner(p) or (one is not None and one.has_begun):
            raise
        restore()
        _go_without(p, str(error).removeprefix("AsynDM: "))
    return host_function(model, x, *positional, **keywords)


def _go_without(p: Any, reason: str) -> None:
    """Say that a pass is sampled without AsynDM."""
    if belonging.is_inner(p):
        infotext.note(belonging.outer(p), f"not applied in ADetailer's pass: {reason}")
    else:
        infotext.not_applied(p, reason)
    tell(f"not applied: {reason}")


def finish(p: Any) -> None:
    """After a batch: say so if no pass of it was sampled with AsynDM."""
    if getattr(p, "asyndm_has_run", False):
        return
    if getattr(p, "asyndm_left_out", False):
        reason = "it is set to the hires pass, and this job has none"
    else:  # scripts that bring a sampling loop of their own never ask for the sampler
        reason = "this job does not use the WebUI's sampler"
    _go_without(p, reason)


def end(p: Any, processed: Any) -> None:
    """The pictures of a job are all there, for AsynDM or not."""
    if belonging.is_copy(p):
        return
    plain_pictures.end(p)
    pictures.attach(p, processed)
    belonging.end(p)


def tell(text: str) -> None:
    """A line in the console, for those who want them."""
    if options.tells_console():
        print(f"AsynDM: {text}")


def _is_left_out(p: Any, settings: Settings) -> bool:
    """Whether the settings leave this pass of hires fix alone."""
    if not hasattr(p, "enable_hr"):  # img2img has one pass
        return False
    left_out = settings.hires == ("first" if getattr(p, "is_hr_pass", False) else "hires")
    if left_out:
        p.asyndm_left_out = True
    return left_out


class _Pass:
    """A pass that is about to be sampled: what the host brought, and what the settings make of it.

    Args:
        p: the host's job.
        settings: the job's.
        denoiser: the host's CFG denoiser.
        x: starting latent ``(B,C,H,W)``, or of a single frame ``(B,C,1,H,W)``.
        arguments: all of the host's sampler function, by name.

    Raises:
        AsynDMError, SettingsError: the job has to stop.
        NotApplied: the pass has to go on without AsynDM.
    """

    def __init__(self, p: Any, settings: Settings, denoiser: Any, x: Tensor, arguments: dict[str, Any]) -> None:
        self.frames = Frames(x)
        self.p, self.settings, self.denoiser, self.x = p, settings, denoiser, x
        self.has_begun = False
        """Whether a step is over, so that the host cannot begin anew."""
        self.host = current()
        self.flow = self.host.is_flow()
        self.solver = pass_solver(p.sampler.config.name, p.sampler.func, self.flow, denoiser)
        self.compared = self._compared(x, arguments)
        if self.compared is not None:
            self.solver = self.compared.solver(p.sampler.config.name, self.solver)
        self.arguments = self.solver.filled(arguments, lambda name: getattr(shared.opts, name, None))
        self.arguments["flow"] = self.flow
        self.arguments["percent_to_sigma"] = self.host.percent_to_sigma()
        if self.solver.space == "timestep":
            self.arguments["alphas_cumprod"] = shared.sd_model.alphas_cumprod
        try:
            self.base = self.solver.schedule(self.arguments)
        except UnusableSchedule as error:
            raise NotApplied(str(error)) from error
        height, width = x.shape[-2:]
        self.shape = (len(x), 1, height, width)
        self.notes: list[str] = []
        self.objects = resolve_objects(p, self.host.finder(p), settings.objects) if settings.uses_words else None
        self.strengths = self.objects.strengths(settings) if self.objects is not None else None
        self.overlap = Overlap() if self.strengths is not None and self.strengths.differ else None
        self.painted = mask.slow_fraction(p, settings, (height, width)) if settings.uses_mask else None

    def _compared(self, x: Tensor, arguments: Mapping[str, Any]) -> Compared | None:
        rival = self.settings.compare
        if rival is None:
            return None
        return Compared(rival, float((arguments["extra_args"] or {}).get("cond_scale", 1.0)), len(x))

    def sample(self) -> Tensor:
        """The finished latent, as the host's."""
        infotext.begin_pass(self.p, self.settings, self.objects.names if self.objects is not None else None)
        coverage = Coverage()
        watching = [coverage.watch, *pictures.recorders(self.p, self.settings), *watchers]
        recording = None
        if options.keeps_last_run():
            recording = last_run.begin_pass(self.settings, self._description())
            watching.append(recording.watch)
        try:
            latent = self._latent(watching)
        except (AsynDMError, NotApplied) as error:
            # A pass that is begun anew has done nothing.
            if recording is not None and (isinstance(error, NotApplied) or not self.has_begun):
                recording.drop()
            raise
        if recording is not None:
            recording.finish()
        # With another method alone no pixel is to lag, and the picture is not the ordinary one.
        alone = self.compared is not None and not self.settings.strongest
        of_coverage = None if alone else coverage.note(self.settings)
        notes = [note for note in (*self.notes, of_coverage, self._apart()) if note]
        for note in notes:
            where = "in ADetailer's pass " if belonging.is_inner(self.p) else ""
            infotext.note(belonging.outer(self.p), where + note)
        if self.compared is not None:
            infotext.equivalent(self.p, self.compared.scales)
        names = self.objects.names if self.objects is not None else []
        tell("; ".join([coverage.summary(), *map(", ".join, names), *notes]))
        return latent

    def _apart(self) -> str | None:
        """What is to be said of objects that are not slow alike."""
        if self.overlap is None or self.objects is None or self.strengths is None:
            return None
        return self.overlap.note(self.objects.names, self.strengths)

    def _latent(self, watching: list[Callable[[StepRecord], None]]) -> Tensor:
        def watch(record: StepRecord) -> None:
            self.has_begun = True
            for watcher in watching:
                watcher(record)

        # With very little denoising strength the host's timestep samplers make no step at all.
        makes_no_step = self.solver.space == "timestep" and len(self.base.nodes) < 2
        with preview.overlay(self.settings) as watch_preview:
            watching += watch_preview
            callback = self.arguments.get("callback")
            try:
                return self.x if makes_no_step else self._run(self._region(), self.x, callback, watch, self.compared)
            except NoAttention as error:  # only the first call raises it
                raise NotApplied(str(error)) from error

    def _description(self) -> Pass:
        p = self.p
        kind = "hires" if getattr(p, "is_hr_pass", False) else "txt2img" if hasattr(p, "enable_hr") else "img2img"
        return Pass(
            kind="adetailer" if belonging.is_inner(p) else kind,
            iteration=belonging.outer(p).iteration,
            sampler=p.sampler.config.name,
            unit=self.solver.space,
            size=(self.shape[-2], self.shape[-1]),
            objects=self.objects.names if self.objects is not None else [],
        )

    def _region(self) -> Region:
        settings = self.settings
        average = None
        if self.objects is not None and settings.mask_source == "fixed":
            average = self._average_attention()
        see = self.overlap.see if self.overlap is not None else None
        return region_for(settings, self.shape, self.strengths, self.painted, average, see)

    def _average_attention(self) -> Tensor:
        """The objects' attention in a plain pass with the same noise, ``(B,n,h,w)``."""
        region = AverageAttention(self.shape)
        with rehearsal(self.p, self.denoiser):
            self._run(region, self.x.clone(), show_progress)
        return region.maps

    def _run(
        self,
        region: Region,
        x: Tensor,
        callback: Callable[[dict[str, Any]], None] | None,
        watch: Callable[[StepRecord], None] | None = None,
        compared: Compared | None = None,
    ) -> Tensor:
        arguments, solver, frames = self.arguments, self.solver, self.frames
        effect = self.settings.uses_guidance
        model = self.host.pass_model(self.denoiser, arguments, solver, len(x), self.objects, effect, compared)
        sample = solver.sample if compared is None else compared.sample(solver)
        with model.attached():
            host = FromHost(
                randn_like=frames.randn_like(noise_source(self.p.sampler.func)),
                noise_sampler=frames.noise_sampler(brownian_tree(solver, self.p.sampler.func, x, arguments)),
                flow=self.flow,
                table=model.noise,
                percent_to_sigma=arguments["percent_to_sigma"],
                callback=frames.callback(callback),
                watch=watch,
                progress=lambda steps: tqdm.tqdm(steps, disable=arguments.get("disable")),
            )
            run = Run(
                frames.model(model),
                PixelSchedule(self.base, self.shape, self.settings.curve),
                PerPatch(region, model.patch) if model.patch > 1 else region,
                frames.flat(x),
                host,
            )
            latent = frames.deep(sample(run, frames.flat(x), **solver.chosen(arguments)))
        note = model.neighbours.said()
        if note and note not in self.notes:
            self.notes.append(note)
        return latent
