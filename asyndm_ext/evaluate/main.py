"""``asyndm evaluate``: plan, draw, judge, report; each step looks at what is there already."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asyndm_ext.embedded.scenes import KINDS
from asyndm_ext.evaluate.backends import Backend
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.metrics import Column, MetricUnavailable
from asyndm_ext.evaluate.options import build_parser
from asyndm_ext.evaluate.plan import Plan, Unit
from asyndm_ext.evaluate.prompts import exact_world, from_files, small_world
from asyndm_ext.evaluate.store import Store
from asyndm_ext.exact.config import ExactConfig

_INSTALL = "pip install 'asyndm-webui[embedded]' brings it"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    parser = build_parser()
    options = parser.parse_args(argv)
    try:
        plan = plan_of(options)
        backend = _backend(options)
        if not options.report_only:
            backend.check(plan)
        metrics = _metrics(options)
        store = Store(options.out, None if options.report_only else backend.made_with())
    except ModuleNotFoundError as missing:
        print(f"asyndm evaluate: {missing.name} is missing; {_INSTALL}", file=sys.stderr)
        return 1
    except MetricUnavailable as error:
        print(f"asyndm evaluate: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        parser.error(str(error))
    code = 0
    try:
        if not options.report_only:
            _draw(plan, backend, store, options.minutes)
            _judge(plan, metrics, store)
    except KeyboardInterrupt:
        print("asyndm evaluate: stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    except (OSError, RuntimeError) as error:
        print(f"asyndm evaluate: {error}; the same command goes on from here", file=sys.stderr)
        code = 1
    files = write_report(options, plan, store, [column for metric in metrics for column in metric.columns])
    for path in files:
        print(path)
    return code


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
        prompts = small_world(options.prompts or 40, options.kind or KINDS, options.prompts_seed)
    varied = dict(options.vary)
    settings = {"strength": options.strength, "curve": options.curve, **varied}
    conditions = {
        "solver": options.solver,
        "scheduler": options.scheduler or ["Automatic" if webui else "uniform"],
        "steps": options.steps,
        "guidance": options.guidance or [_usual_guidance(options)],
    }
    methods = lay_out(options.methods, settings, conditions, options.grid)
    exact = options.exact is not None
    chunk = 1 if webui else _batch(options)
    return Plan(prompts, methods, options.seeds or (25 if exact else 1), options.first_seed, chunk)


def _batch(options: argparse.Namespace) -> int:
    return options.batch or (16 if options.exact is None else 500)


def _usual_guidance(options: argparse.Namespace) -> float:
    if options.url:
        return 7.0
    if options.exact is not None:
        return 5.0
    from asyndm_ext.embedded.sampling import GUIDANCE  # imports torch, which a WebUI's client need not have

    return GUIDANCE


def _backend(options: argparse.Namespace) -> Backend:
    if options.url:
        from asyndm_ext.evaluate.backends.webui import Request, WebUIBackend

        side = options.size or 512
        auth = options.auth or os.environ.get("ASYNDM_EVALUATE_AUTH", "")
        request = Request(
            width=options.width or side,
            height=options.height or side,
            model=options.model or "",
            negative=options.negative,
            eta=options.eta,
            timeout=options.timeout,
        )
        return WebUIBackend(options.url, options.out, request, auth)
    if options.exact is not None:
        from asyndm_ext.evaluate.backends.exact import ExactBackend

        return ExactBackend(ExactConfig.read(options.exact), options.eta)
    from asyndm_ext.evaluate.backends.embedded import Drawing, EmbeddedBackend

    drawing = Drawing(options.weights, options.out, options.size or 128, options.bfloat16, options.device)
    return EmbeddedBackend(drawing, _batch(options), options.processes)


def _metrics(options: argparse.Namespace) -> list[Any]:
    """The judges; that of the small world judges while the embedded model draws."""
    from asyndm_ext.evaluate.metrics.choose import chosen

    own: list[Any] = []
    if options.exact is not None:
        from asyndm_ext.evaluate.metrics.exact_world import ExactScores

        return [ExactScores()]
    if not options.url:
        from asyndm_ext.evaluate.metrics.small_world import SmallWorld

        own = [SmallWorld()]
    return own + [chosen(text) for text in options.metric]


def _draw(plan: Plan, backend: Backend, store: Store, minutes: float | None) -> None:
    """Make what is missing, under a progress bar, until the time is up."""
    from tqdm import tqdm

    done = store.done()
    wanted = {pair.key(method) for pair in plan.pairs for method in plan.methods}
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    if wanted <= done:
        return
    with tqdm(total=len(wanted), initial=len(wanted & done), unit="picture", file=sys.stderr) as bar:
        for results in backend.run(_until(plan.units(done), deadline)):
            fresh = sum(result.final and result.key not in done for result in results)
            store.add(results)
            bar.update(fresh)
    failed = [result for result in store.results.values() if not result.final]
    if failed:
        print(f"asyndm evaluate: {len(failed)} pictures failed, e.g. {failed[0].status}", file=sys.stderr)


def _until(units: Iterable[Unit], deadline: float | None) -> Iterator[Unit]:
    for unit in units:
        if deadline is not None and time.monotonic() > deadline:
            return
        yield unit


def _judge(plan: Plan, metrics: Sequence[Any], store: Store, batch: int = 16) -> None:
    """Score the pictures that a judge has not seen."""
    from PIL import Image
    from tqdm import tqdm

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
        with tqdm(total=len(waiting), unit="picture", desc=first, file=sys.stderr) as bar:
            for start in range(0, len(waiting), batch):
                some = waiting[start : start + batch]
                pictures = []
                for _, result in some:
                    with Image.open(store.folder / result.picture) as picture:
                        pictures.append(picture.convert("RGB"))
                scores = metric.score(pictures, [pair.prompt for pair, _ in some])
                store.add_scores(zip([result.key for _, result in some], scores, strict=True))
                bar.update(len(some))


def write_report(options: argparse.Namespace, plan: Plan, store: Store, columns: Sequence[Column]) -> list[Path]:
    """Write both tables and the page; returns their paths."""
    from asyndm_ext.evaluate.report import report
    from asyndm_ext.evaluate.summary import Summary

    summary = Summary(plan, store.results, columns, options.resample == "prompts", options.resamples)
    judge = None if options.url or options.exact is not None else _judge_errors(options, plan)
    page = report(summary, options.out, store.made_with, judge, options.sheet, options.sheet_seed)
    files = {
        "pictures.csv": summary.pictures_csv(),
        "differences.csv": summary.differences_csv(),
        "report.html": page,
    }
    for name, text in files.items():
        (options.out / name).write_text(text, encoding="utf-8")
    return [options.out / name for name in files]


def _judge_errors(options: argparse.Namespace, plan: Plan) -> Any:
    """The judge's errors on true scenes; measured once and kept beside the results."""
    from asyndm_ext.embedded.model import WEIGHTS, load_tiny
    from asyndm_ext.evaluate.backends.embedded import one_thread
    from asyndm_ext.evaluate.judge_check import JudgeErrors, check_judge

    if options.true_scenes <= 0:
        return None
    path = options.out / "judge.json"
    if path.is_file():
        kept = JudgeErrors(**json.loads(path.read_text(encoding="utf-8")))
        if kept.scenes == options.true_scenes:
            return kept
    prompts = [prompt.text for prompt in plan.prompts]
    with one_thread():
        found = check_judge(load_tiny(options.weights or WEIGHTS), prompts, options.true_scenes, options.size or 128)
    path.write_text(json.dumps(found.to_dict()) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
