"""Which job a job belongs to: copies of a job, and jobs within one."""

from __future__ import annotations

import gc
import json
from copy import copy

import pytest

from asyndm_ext.hosts.webui import belonging


class Job:
    """As much of the host's as matters."""

    def __init__(self, inner: bool = False) -> None:
        if inner:
            self._ad_inner = True


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belonging, "_present", belonging._Present())


def test_a_copy_in_the_midst_of_a_job_is_no_job() -> None:
    p = Job()
    assert not belonging.is_copy(p) and not belonging.is_copy(copy(p))
    belonging.begin(p)
    assert not belonging.is_copy(p) and belonging.is_copy(copy(p)) and belonging.is_copy(copy(copy(p)))
    assert belonging.outer(copy(p)) is p and belonging.outer(p) is p
    belonging.end(copy(p))
    assert belonging.is_copy(copy(p)), "the end of a copy is not the end of the job"
    belonging.end(p)
    assert not belonging.is_copy(copy(p))


def test_the_same_job_sampled_again_is_a_new_one() -> None:
    """Scripts do so, and after an error nobody has called its end."""
    p = Job()
    belonging.begin(p)
    before = copy(p)
    belonging.begin(p)
    assert belonging.is_copy(copy(p)) and not belonging.is_copy(before)


def test_copies_of_a_job_that_has_not_begun_are_jobs() -> None:
    """The cells of a plot."""
    p = Job()
    for _ in range(3):
        cell = copy(p)
        assert not belonging.is_copy(cell)
        belonging.begin(cell)


def test_an_inner_job_belongs_to_the_one_around_it() -> None:
    p, inner, other = Job(), Job(inner=True), Job()
    assert belonging.outer(inner) is inner, "none around it that is ours"
    belonging.begin(p)
    assert belonging.outer(inner) is p and belonging.outer(copy(inner)) is p
    assert belonging.outer(other) is other
    belonging.end(inner)
    assert belonging.outer(inner) is p
    belonging.end(p)
    assert belonging.outer(inner) is inner


def test_a_job_that_is_gone_is_not_held() -> None:
    p = Job()
    belonging.begin(p)
    left = copy(p)
    del p
    gc.collect()
    assert not belonging.is_copy(left) and belonging.outer(left) is left


def test_what_is_on_the_job_can_be_sent_to_other_machines_and_goes() -> None:
    p = Job()
    belonging.begin(p)
    json.dumps(vars(p))
    belonging.end(p)
    assert vars(p) == {}
