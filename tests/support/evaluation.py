"""Reports of made-up evaluations."""

from __future__ import annotations

from pathlib import Path

from asyndm_ext.evaluate.judge_check import JudgeErrors
from asyndm_ext.evaluate.methods import USUAL, lay_out
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.report import report
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary

SHARE = Column("exact", "all right", "Everything.", share=True)
RARE = Column("relation", "relation", "Where there is one.", share=True)
GRAIN = Column("grain", "grain", "Noise.", rises=False)
CONDITIONS = {"solver": ["Euler"], "scheduler": ["uniform"], "steps": [20], "guidance": [2.5]}


def page(
    number=3,
    kinds=("one",),
    methods=USUAL,
    scores=lambda pair, method: {"exact": 1.0},
    folder=Path(),
    picture="",
):
    """The report of a run that was not made: no picture is there."""
    prompts = [Prompt(f"prompt {n} of {kind}", kind) for n in range(number) for kind in kinds]
    plan = Plan(prompts, lay_out(methods, {"strength": [0.7, 0.3]}, CONDITIONS))
    results = {}
    for pair in plan.pairs:
        for method in plan.methods:
            found = scores(pair, method)
            if found is not None:
                one = Result(pair.prompt.text, pair.seed, method.id, picture=picture, scores=found)
                results[one.key] = one
    summary = Summary(plan, results, [SHARE, RARE, GRAIN], resamples=200)
    judge = JudgeErrors(1, 0, 0, 3, 0, 1, 0)
    return report(summary, folder, {"backend": "test", "negative": "", "eta": None}, judge)


def sometimes(pair, method):
    """A method that changes some pairs; grain goes down, the relation is in no prompt."""
    better = method.kind != "plain" and pair.seed % 3 == 0
    return {"exact": float(better or pair.seed % 2), "grain": 2.0 - 0.5 * better}
