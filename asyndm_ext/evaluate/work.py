"""The steps of ``asyndm evaluate``: plan, draw, judge, report; each looks at what is there already."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from asyndm_ext.commands import frame
from asyndm_ext.embedded.limits import GUIDANCE
from asyndm_ext.evaluate.backends import Backend
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.options import WEBUI_SIDES
from asyndm_ext.evaluate.plan import Plan, Unit
from asyndm_ext.evaluate.prompts import KINDS, exact_world, from_files, little_world
from asyndm_ext.evaluate.store import FILE as RESULTS
from asyndm_ext.evaluate.store import Store
from asyndm_ext.exact.config import ExactConfig

_WRITTEN = ("pictures.csv", "differences.csv", "report.html")


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for. Raises ValueError for what cannot be."""
    webui = bool(options.url)
    if options.prompt_file:
        prompts = from_files(options.prompt_file, options.file_strengths)[: options.prompts]
    elif options.exact is not None:
        prompts = exact_world(ExactConfig.read(options.exact), options.kind or ["unusual"], options.prompts)
    elif webui:
        raise ValueError("a WebUI needs prompts: --prompt-file FILE")
    else:
        prompts = little_world(options.prompts or 40, options.kind or tuple(KINDS), options.prompts_seed)
    varied = dict(options.vary)
    settings = {"strength": options.strength, "curve": options.curve, **varied}
    conditions = {
        "solver": options.solver,
        "scheduler": options.scheduler or ["Automatic" if webui else "uniform"],
        "steps": options.steps,
        "guidance": options.guidance or [7.0 if webui else GUIDANCE if options.exact is None else 5.0],
    }
    methods = lay_out(options.methods, settings, conditions, options.grid)
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


def metrics_of(options: argparse.Namespace) -> list[Any]:
    """The judges; that of the little world judges while the embedded model draws."""
    from asyndm_ext.evaluate.metrics.choose import chosen

    if options.exact is not None:
        from asyndm_ext.evaluate.metrics.exact_world import ExactScores

        return [ExactScores()]
    own: list[Any] = []
    if not options.url:
        from asyndm_ext.evaluate.metrics.little_world import LittleWorld

        own = [LittleWorld()]
    return own + [chosen(text) for text in options.metric]


def store_of(options: argparse.Namespace, backend: Backend) -> Store:
    """The results in the run's folder. Raises ValueError if they are of another run, or somebody else's."""
    if not (options.out / RESULTS).exists():
        for name in _WRITTEN:
            if (options.out / name).exists():
                raise ValueError(f"{options.out} has a {name} of something else; choose another folder with --out")
    return Store(options.out, None if options.report_only else backend.made_with())


def draw(plan: Plan, backend: Backend, store: Store, minutes: float | None) -> None:
    """Make what is missing, under a progress bar, until the time is up."""
    done = store.done()
    wanted = {pair.key(method) for pair in plan.pairs for method in plan.methods}
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    if wanted <= done:
        return
    with (
        frame.progress(total=len(wanted), initial=len(wanted & done), unit="picture") as bar,
        closing(backend.run(_until(plan.units(done), deadline))) as coming,
    ):
        for results in coming:
            fresh = sum(result.final and result.key not in done for result in results)
            store.add(results)
            bar.update(fresh)
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


def write_report(
    options: argparse.Namespace, plan: Plan, store: Store, columns: Sequence[Column], measure: bool = True
) -> list[Path]:
    """Write both tables and the page; returns their paths.

    Args:
        options, plan, store, columns: of the run.
        measure: the judge's own errors, if that was not done yet.
    """
    from asyndm_ext.evaluate.report import report
    from asyndm_ext.evaluate.summary import Summary

    summary = Summary(plan, store.results, columns, options.resample == "prompts", options.resamples)
    errors = None if options.url or options.exact is not None else _judge_errors(options, plan, measure)
    page = report(summary, options.out, store.made_with, errors, options.sheet, options.sheet_seed)
    texts = (summary.pictures_csv(), summary.differences_csv(), page)
    return [_write(options.out / name, text) for name, text in zip(_WRITTEN, texts, strict=True)]


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
