"""The steps of ``asyndm evaluate``: plan, draw, judge, report; each looks at what is there already."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from asyndm_ext.commands import frame
from asyndm_ext.embedded.limits import GUIDANCE
from asyndm_ext.evaluate import paper
from asyndm_ext.evaluate.backends import Backend
from asyndm_ext.evaluate.controls import FILE as MATCHED
from asyndm_ext.evaluate.controls import chooses, complete, extended, matched
from asyndm_ext.evaluate.estimate import Estimate
from asyndm_ext.evaluate.methods import FILE as FILE_STRENGTH
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.options import WEBUI_SIDES
from asyndm_ext.evaluate.plan import Pair, Plan, Unit
from asyndm_ext.evaluate.prompts import KINDS, exact_world, from_files, little_world
from asyndm_ext.evaluate.store import FILE as RESULTS
from asyndm_ext.evaluate.store import Store
from asyndm_ext.evaluate.summary import Summary
from asyndm_ext.exact.config import ExactConfig

_WRITTEN = ("pictures.csv", "differences.csv", "report.html")


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for. Raises ValueError for what cannot be."""
    webui = bool(options.url)
    if options.paper and not webui:
        raise ValueError(
            "--paper is for the paper's checkpoints, which a WebUI draws with: give its address with --url"
        )
    if options.prompt_file:
        prompts = from_files(options.prompt_file, options.file_strengths)[: options.prompts]
    elif options.paper and not paper.TABLES[options.paper].sets:
        prompts = [paper.FIGURE_PROMPT]
    elif options.paper:
        prompts = []
    elif options.exact is not None:
        prompts = exact_world(ExactConfig.read(options.exact), options.kind or ["unusual"], options.prompts)
    elif webui:
        raise ValueError("a WebUI needs prompts: --prompt-file FILE")
    else:
        prompts = little_world(options.prompts or 40, options.kind or tuple(KINDS), options.prompts_seed)
    if options.paper and paper.TABLES[options.paper].sets:
        paper.check(options.paper, prompts, options.prompts is not None)
    varied = dict(options.vary)
    strengths: list[Any] = list(options.strength)
    if options.file_strengths:
        if not any(spec.strength is not None for prompt in prompts for spec in prompt.objects):
            raise ValueError("--file-strengths: no prompt comes from a file with strengths")
        # The paper's numbers are with these.
        strengths.insert(0 if options.paper else len(strengths), FILE_STRENGTH)
    settings = {"strength": strengths, "curve": options.curve, **varied}
    conditions = {
        "solver": options.solver,
        "scheduler": options.scheduler or ["Automatic" if webui else "uniform"],
        "steps": options.steps,
        "guidance": options.guidance or [7.0 if webui else GUIDANCE if options.exact is None else 5.0],
    }
    methods = lay_out(options.methods, settings, conditions, options.grid, options.plain_guidance)
    seeds = options.seeds or (1 if options.exact is None else 25)
    return Plan(prompts, methods, seeds, options.first_seed, chunk=1 if webui else _batch(options))


def _batch(options: argparse.Namespace) -> int:
    return options.batch or (16 if options.exact is None else 500)


def backend_of(options: argparse.Namespace) -> Backend:
    """Who draws. Raises ValueError for what cannot be."""
    if options.url and options.exact is not None:
        raise ValueError("a WebUI (--url) and the exact world (--exact) are two runs; take one of them")
    if options.exact is not None:
        from asyndm_ext.evaluate.backends.exact import ExactBackend

        return ExactBackend(ExactConfig.read(options.exact), options.eta)
    if options.url:
        from asyndm_ext.evaluate.backends.webui import Request, WebUIBackend

        side = options.size or 512
        auth = options.auth or os.environ.get("ASYNDM_EVALUATE_AUTH", "")
        width, height = options.width or side, options.height or side
        low, high = WEBUI_SIDES
        if any(one % 8 or not low <= one <= high for one in (width, height)):
            raise ValueError(f"width and height must be multiples of 8 from {low} to {high}, got {width}x{height}")
        request = Request(
            width=width,
            height=height,
            model=options.model or "",
            negative=options.negative,
            eta=options.eta,
            timeout=options.timeout,
        )
        return WebUIBackend(options.url, options.out, request, auth)
    from asyndm_ext.evaluate.backends.embedded import Drawing, EmbeddedBackend

    drawing = Drawing(options.weights, options.out, options.size or 128, options.bfloat16, options.device, options.eta)
    return EmbeddedBackend(drawing, _batch(options), options.processes)


def metrics_of(options: argparse.Namespace, plan: Plan) -> tuple[list[Any], list[Any]]:
    """The judges of pictures and those of sets of pictures; that of the little world judges while the embedded model
    draws. Raises ValueError for one that can say nothing about these prompts.
    """
    from asyndm_ext.evaluate.metrics.choose import chosen

    if options.exact is not None:
        from asyndm_ext.evaluate.metrics.exact_world import ExactScores

        return [ExactScores()], []
    own: list[Any] = []
    if not options.url:
        from asyndm_ext.evaluate.metrics.little_world import LittleWorld

        own = [LittleWorld()]
    found = own + [chosen(text) for text in options.metric]
    for metric in found:
        if hasattr(metric, "check"):
            metric.check(plan.prompts)
    return [metric for metric in found if metric.columns], [metric for metric in found if not metric.columns]


def store_of(options: argparse.Namespace, backend: Backend) -> Store:
    """The results in the run's folder. Raises ValueError if they are of another run, or somebody else's."""
    if not (options.out / RESULTS).exists():
        for name in _WRITTEN:
            if (options.out / name).exists():
                raise ValueError(f"{options.out} has a {name} of something else; choose another folder with --out")
    return Store(options.out, None if options.report_only else backend.made_with())


def end_of(options: argparse.Namespace) -> float | None:
    """When the time is up, on the monotonic clock."""
    return None if options.minutes is None else time.monotonic() + 60 * options.minutes


def with_controls(options: argparse.Namespace, plan: Plan, store: Store) -> Plan:
    """The plan with the plain pictures that its methods are held against, as soon as it is known which these are."""
    if not options.matched or not (complete(plan, store.results) or (store.folder / MATCHED).is_file()):
        return plan
    return extended(plan, matched(plan, store.results, store.folder))


def draw(plan: Plan, backend: Backend, store: Store, deadline: float | None) -> None:
    """Make what is missing, under a progress bar, until the time is up."""
    done = store.done()
    wanted = {pair.key(method) for pair in plan.pairs for method in plan.methods}
    if wanted <= done:
        return
    estimate = Estimate(plan, done)
    print(f"asyndm evaluate: {estimate.before()}", file=sys.stderr)
    with (
        frame.progress(total=len(wanted), initial=len(wanted & done), unit="picture") as bar,
        closing(backend.run(_until(plan.units(done), deadline))) as coming,
    ):
        for results in coming:
            fresh = sum(result.final and result.key not in done for result in results)
            store.add(results)
            bar.update(fresh)
            said = estimate.after(result.method for result in results)
            if said:
                bar.write(f"asyndm evaluate: {said}", file=sys.stderr)
    failed = [result for result in store.results.values() if not result.final]
    if failed:
        pictures = "1 picture failed" if len(failed) == 1 else f"{len(failed)} pictures failed"
        print(f"asyndm evaluate: {pictures}, e.g. {failed[0].status}", file=sys.stderr)


def _until(units: Iterable[Unit], deadline: float | None) -> Iterator[Unit]:
    for unit in units:
        if deadline is not None and time.monotonic() > deadline:
            return
        yield unit


def judge(plan: Plan, metrics: Sequence[Any], store: Store, batch: int = 16) -> None:
    """Score the pictures that a judge has not seen."""
    from PIL import Image

    for metric in metrics:
        first = metric.columns[0].name
        waiting = [
            (pair, result)
            for pair in plan.pairs
            for method in plan.methods
            if (result := store.results.get(pair.key(method))) and result.picture and first not in result.scores
        ]
        if not waiting:
            continue
        with frame.progress(total=len(waiting), unit="picture", desc=first) as bar:
            for start in range(0, len(waiting), batch):
                some = waiting[start : start + batch]
                pictures = []
                for _, result in some:
                    with Image.open(store.folder / result.picture) as picture:
                        pictures.append(picture.convert("RGB"))
                scores = metric.score(pictures, [pair.prompt for pair, _ in some])
                store.add_scores(zip([result.key for _, result in some], scores, strict=True))
                bar.update(len(some))


def look(plan: Plan, judges: Sequence[Any], store: Store) -> None:
    """The same for judges that look at all pictures together."""
    if judges:
        from asyndm_ext.evaluate import sets

        for one in judges:
            sets.look(plan, one, store)


def write_report(
    options: argparse.Namespace,
    plan: Plan,
    store: Store,
    columns: Sequence[Column],
    judges: Sequence[Any] = (),
    measure: bool = True,
) -> list[Path]:
    """Write the tables and the page; returns their paths.

    Args:
        options, plan, store, columns: of the run; the plan without controls.
        judges: of sets of pictures.
        measure: the judge's own errors, if that was not done yet.
    """
    from asyndm_ext.evaluate.report import report

    plan, found = with_controls(options, plan, store), {}
    if options.matched and (store.folder / MATCHED).is_file():
        found = matched(plan, store.results, store.folder)

    def numbers(only: Callable[[Pair], bool] = lambda pair: True) -> Summary:
        return Summary(plan, store.results, columns, options.resample == "prompts", options.resamples, only=only)

    by = options.choose_on
    summary = numbers((lambda pair: not chooses(pair, by)) if by else lambda pair: True)
    choosing = numbers(lambda pair: chooses(pair, by)) if by else None
    errors = None if options.url or options.exact is not None else _judge_errors(options, plan, measure)
    distances, told = _distances(options, judges, numbers(), store)
    pages = [] if options.vote is None else [_vote(options, summary)]
    page = report(
        summary,
        options.out,
        store.made_with,
        errors,
        options.sheet,
        options.sheet_seed,
        choosing=choosing,
        halves=by,
        matched=found,
        votes=_votes(options),
        table=options.paper,
        distances=told,
    )
    texts = (summary.pictures_csv(), summary.differences_csv(), page)
    files = [_write(options.out / name, text) for name, text in zip(_WRITTEN, texts, strict=True)]
    return files + distances + [path for path in pages if path is not None]


def _distances(
    options: argparse.Namespace, judges: Sequence[Any], summary: Summary, store: Store
) -> tuple[list[Path], str]:
    """FID and KID: the table's path and the report's section, if they were asked for."""
    if not judges:
        return [], ""
    from asyndm_ext.evaluate import report_distances, sets

    paths, told = [], []
    for one in judges:
        try:
            rows = sets.measured(summary, one, store, options.resample == "prompts")
        except ValueError as error:
            print(f"asyndm evaluate: {error}", file=sys.stderr)
            continue
        paths.append(_write(options.out / report_distances.FILE, report_distances.as_csv(rows)))
        told.append(report_distances.section(rows, one.reference, options.paper))
    return paths, "".join(told)


def _votes(options: argparse.Namespace) -> list[Any]:
    """People's votes that are there; what cannot be read is told and left out."""
    from asyndm_ext.evaluate import vote

    try:
        return vote.read(options.out)
    except ValueError as error:
        print(f"asyndm evaluate: the votes are left out: {error}", file=sys.stderr)
        return []


def _vote(options: argparse.Namespace, summary: Summary) -> Path | None:
    """The page for people, between the central methods that were asked for, or as many of them as one can look at."""
    from asyndm_ext.evaluate import vote

    central = [method for method in summary.plan.methods if method.label == method.kind]
    named = options.vote_methods or [method.kind for method in central][:6]
    methods = [method for method in central if method.kind in named]
    try:
        if len(methods) < len(named):
            raise ValueError(f"--vote-methods names a method that is not drawn: {', '.join(named)}")
        return vote.write(summary, options.out, methods, options.vote, options.vote_seed)
    except ValueError as error:
        print(f"asyndm evaluate: no page to vote on: {error}", file=sys.stderr)
        return None


def _write(path: Path, text: str) -> Path:
    """The whole text, or what was there before."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def _judge_errors(options: argparse.Namespace, plan: Plan, measure: bool) -> Any:
    """The judge's errors on true scenes; measured once and kept beside the results."""
    from asyndm_ext.evaluate.backends.embedded import one_thread
    from asyndm_ext.evaluate.judge_check import JudgeErrors, check_judge
    from asyndm_ext.evaluate.metrics.little_world import the_judge
    from asyndm_ext.world.model import WEIGHTS, load_world

    if options.true_scenes <= 0:
        return None
    path = options.out / "judge.json"
    if path.is_file():
        kept = JudgeErrors(**json.loads(path.read_text(encoding="utf-8")))
        if kept.scenes == options.true_scenes:
            return kept
    if not measure:
        return None
    prompts = [prompt.text for prompt in plan.prompts]
    with one_thread():
        found = check_judge(load_world(options.weights or WEIGHTS), the_judge(), prompts, options.true_scenes)
    _write(path, json.dumps(found.to_dict()) + "\n")
    return found
