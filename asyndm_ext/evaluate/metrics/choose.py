"""A judge by its name and the options behind it, as on the command line: ``clipscore:weights=FILE,device=cuda``."""

from __future__ import annotations

import importlib

from asyndm_ext.evaluate.metrics import Metric

METRICS: dict[str, str] = {
    "clipscore": "asyndm_ext.evaluate.metrics.clip_score:ClipScore",
    "imagereward": "asyndm_ext.evaluate.metrics.image_reward:ImageReward",
    "bertscore": "asyndm_ext.evaluate.metrics.bert_score:BertScore",
    "hps": "asyndm_ext.evaluate.metrics.hps:Hps",
    "pickscore": "asyndm_ext.evaluate.metrics.pick_score:PickScore",
    "vqascore": "asyndm_ext.evaluate.metrics.vqa_score:VqaScore",
    "softtifa": "asyndm_ext.evaluate.metrics.soft_tifa:SoftTifa",
    "vlm": "asyndm_ext.evaluate.metrics.vlm_score:VlmScore",
    "fid": "asyndm_ext.evaluate.metrics.inception:Inception",
}
"""Name of a judge, to its module and class: imported only when it is asked for. Others: ``package.module:Class``."""


def chosen(text: str) -> Metric:
    """The judge.

    Raises:
        ValueError: no such judge, or it does not take these options.
        MetricUnavailable: a package or weights are missing.
    """
    head, *rest = text.split(",")
    # The class of an unnamed judge follows a colon, too.
    parts = head.split(":")
    known = parts[0] in METRICS
    place = METRICS[parts[0]] if known else ":".join(parts[:2])
    options = [":".join(parts[1 if known else 2 :]), *rest]
    if not known and len(parts) < 2:
        raise ValueError(f"unknown metric {head!r}; known are {', '.join(METRICS)}, and package.module:Class")
    values: dict[str, str] = {}
    for option in filter(None, options):
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"metric {text!r}: {option!r} is not KEY=VALUE")
        values[key] = value
    module, _, name = place.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"metric {text!r}: {error}") from None
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"metric {text!r}: {error}") from None
