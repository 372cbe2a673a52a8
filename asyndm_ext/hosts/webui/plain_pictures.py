"""Compare with plain: a job's plain pictures, as further batches of the same job, with its prompts and seeds.

So the host itself saves them, shows them, counts them, and tells the progress; an interrupt leaves what there is, and
other extensions see a job of twice as many pictures, all of which they treat alike. (A job within the job would draw
new wildcards, overwrite the last parameters, and meet extensions that are not done with the job around it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyndm_ext.hosts.webui import belonging
from asyndm_ext.ui import infotext

FIRST = "asyndm_first_plain"
"""Attribute of a job: the number of its first plain batch, which is that of its other batches."""
APPLIED = "asyndm_applied"
"""Attribute of a job: whether a pass of it was sampled with AsynDM."""
ENTRIES = "asyndm_entries"
"""Attribute of a job: our entries of its infotext, while its plain pictures are made."""
PER_PICTURE = (
    "all_prompts",
    "all_negative_prompts",
    "all_seeds",
    "all_subseeds",
    "all_hr_prompts",
    "all_hr_negative_prompts",
)
"""A job's lists with an entry for each picture."""


def begin(p: Any) -> None:
    """Double a job that begins, before the host reads how many batches it has."""
    pictures = p.n_iter * p.batch_size
    if belonging.is_a_script_s(p):
        p.comment("AsynDM: there is no plain picture to compare with, as a script of the Script menu uses all it gets.")
        return
    if len(p.all_prompts) != pictures:
        _say_that_the_number_changed(p)
        return
    for name in PER_PICTURE:
        entries = getattr(p, name, None) or ()
        if len(entries) >= pictures:
            setattr(p, name, [*entries[:pictures]] * 2)
    setattr(p, FIRST, p.n_iter)
    p.n_iter *= 2


def begin_batch(p: Any) -> None:
    """Before a batch: from the first plain one on the infotext says so. Without anything to compare there is none."""
    first = getattr(p, FIRST, None)
    if first is None or belonging.is_copy(p):
        return
    if p.iteration == 0 and (p.n_iter != 2 * first or len(p.all_prompts) != p.n_iter * p.batch_size):
        del p.__dict__[FIRST]  # their numbers are no longer ours
        _say_that_the_number_changed(p)
    elif p.iteration == first:
        if not getattr(p, APPLIED, False):
            p.prompts = []  # by which the host knows the end
            p.comment("AsynDM: there is no second picture to compare with, because this one is the plain one already.")
            return
        p.__dict__.pop("asyndm_recorder", None)  # whose pictures are of the batch before
        setattr(p, ENTRIES, infotext.become_plain(p))


def applied(p: Any) -> None:
    """A pass was sampled with AsynDM."""
    setattr(p, APPLIED, True)


def is_plain(p: Any) -> bool:
    """Whether a job is at its plain pictures."""
    first = getattr(p, FIRST, None)
    return first is not None and p.iteration >= first


def end(p: Any) -> None:
    """Make the job what it was; also of one that did not come to its end, before it begins again."""
    first = p.__dict__.pop(FIRST, None)
    if first is not None:
        p.n_iter = first
    entries: Mapping[str, Any] | None = p.__dict__.pop(ENTRIES, None)
    if entries is not None:
        infotext.forget(p)
        p.extra_generation_params.update(entries)
    p.__dict__.pop(APPLIED, None)


def _say_that_the_number_changed(p: Any) -> None:
    p.comment("AsynDM: there is no plain picture to compare with, as another extension has changed how many there are.")
