"""``asyndm evaluate``: plan, draw, judge, report. The work is in :mod:`.work`, which needs torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asyndm_ext.commands import folders, frame, interrupts
from asyndm_ext.evaluate.options import build_parser

_GOES_ON = "the same command goes on from here"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    return frame.run(build_parser(argv), argv, _evaluate, interrupted=f"stopped; {_GOES_ON}")


def _evaluate(options: argparse.Namespace) -> int:
    from asyndm_ext.evaluate import work
    from asyndm_ext.evaluate.metrics import MetricUnavailable

    try:
        with frame.checking():
            folders.check(options.out)
            plan = work.plan_of(options)
            backend = work.backend_of(options)
            if not options.report_only:
                backend.check(plan)
            metrics, sets = work.metrics_of(options, plan)
            store = work.store_of(options, backend)
    except MetricUnavailable as error:
        print(f"asyndm evaluate: {error}", file=sys.stderr)
        return 1
    code, stopped, base = 0, None, plan
    try:
        if not options.report_only:
            with interrupts.careful():
                end = work.end_of(options)
                work.draw(plan, backend, store, end)
                plan = work.with_controls(options, base, store)
                try:
                    backend.check(plan)
                except ValueError as error:
                    raise RuntimeError(f"plain pictures to hold the methods against: {error}") from None
                work.draw(plan, backend, store, end)
                work.judge(plan, metrics, store)
                work.look(plan, sets, store)
    except KeyboardInterrupt as error:
        code, stopped = interrupts.EXIT_CODE, error
    except (OSError, RuntimeError) as error:
        code = 1
        print(f"asyndm evaluate: {error}; {_GOES_ON}", file=sys.stderr)
    columns = [column for metric in metrics for column in metric.columns]
    # Who has stopped it is not to wait for the judge's errors to be measured.
    files = work.write_report(options, base, store, columns, sets, measure=not stopped)
    if stopped:
        raise stopped
    for path in files:
        print(path)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
