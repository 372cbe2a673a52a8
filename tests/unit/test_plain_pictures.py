"""Compare with plain: a job's plain pictures are further batches of it, and say in the infotext that they are plain."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from asyndm_ext.hosts.webui import belonging, plain_pictures
from asyndm_ext.ui import compared, infotext, slider


class Job:
    """As much of a job as is read and written, and the host's loop around it.

    Attributes:
        drawn: of each picture: prompt, seed, whether AsynDM was at work, infotext.
    """

    def __init__(self, prompts: list[str], n_iter: int, script: int = 0) -> None:
        self.n_iter, self.batch_size, self.iteration = n_iter, len(prompts) // n_iter, 0
        self.all_prompts, self.all_negative_prompts = list(prompts), ["bad"] * len(prompts)
        self.all_seeds = list(range(7, 7 + len(prompts)))
        self.all_subseeds, self.all_hr_prompts, self.all_hr_negative_prompts = [1] * len(prompts), None, None
        self.prompts: list[str] = []
        self.script_args = [script, True]
        self.extra_generation_params: dict[str, Any] = {"Other": "kept"}
        self.comments: list[str] = []
        self.drawn: list[tuple[str, int, bool, dict[str, str]]] = []
        self.grid: dict[str, str] = {}

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def infotext(self, index: int, use_main_prompt: bool = False) -> dict[str, str]:
        """As the hosts write entries: lists by number, what can be called is called with all that is known."""
        found = {}
        known = {"p": self, "index": index, "use_main_prompt": use_main_prompt, "all_prompts": self.all_prompts}
        for key, entry in self.extra_generation_params.items():
            found[key] = entry[index] if isinstance(entry, list) else entry(**known) if callable(entry) else entry
        return {key: text for key, text in found.items() if text is not None}

    def run(self, applied: bool = True, interrupt: int | None = None) -> Job:
        infotext.record(self, [{"compare_plain": True}])
        plain_pictures.begin(self)
        for number in range(self.n_iter):
            if number == interrupt:
                break
            self.iteration = number
            batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
            self.prompts = self.all_prompts[batch]
            plain_pictures.begin_batch(self)
            if not self.prompts:
                break
            ours = not plain_pictures.is_plain(self) and applied
            if ours:
                infotext.begin_pass(self, SETTINGS, [["cat"]] * self.batch_size)
                plain_pictures.applied(self)
            elif not plain_pictures.is_plain(self):
                infotext.not_applied(self, "no attention")
            for index, (prompt, seed) in enumerate(zip(self.prompts, self.all_seeds[batch], strict=False)):
                self.drawn.append((prompt, seed, ours, self.infotext(index)))
            json.dumps(self.extra_generation_params)  # whole jobs are sent to other machines
        self.grid = self.infotext(0, use_main_prompt=True)
        plain_pictures.end(self)
        return self


SETTINGS = infotext.Settings.from_dict({"compare_plain": True})
PLAIN = {"Other": "kept", "AsynDM": "plain picture for comparison"}


def test_a_plain_picture_for_each_after_all_of_them() -> None:
    job = Job(["a cat", "a dog", "a cow", "a hen"], 2).run()
    assert [drawn[:3] for drawn in job.drawn] == [
        ("a cat", 7, True), ("a dog", 8, True), ("a cow", 9, True), ("a hen", 10, True),
        ("a cat", 7, False), ("a dog", 8, False), ("a cow", 9, False), ("a hen", 10, False),
    ]  # fmt: skip
    assert len(job.all_negative_prompts) == len(job.all_subseeds) == 8 and job.all_hr_prompts is None
    assert job.comments == []


def test_their_infotext_says_that_they_are_plain_and_nothing_else() -> None:
    job = Job(["a cat", "a cat", "a cat", "a cat"], 2).run()
    texts = [text for *_, text in job.drawn]
    assert texts[4:] == [PLAIN] * 4
    for text in texts[:4]:
        assert text["AsynDM strength"] == "0.7" and text["AsynDM compare with plain"] == "True"
        assert text["AsynDM found"] == "cat" and "AsynDM" not in text
    assert job.grid == texts[0], "the grid's are the job's settings"
    assert infotext.pasted("enabled")(texts[0]) is True and infotext.pasted("enabled")(PLAIN) is False
    assert infotext.pasted("compare_plain")(texts[0]) is True


def test_the_job_is_what_it_was_afterwards() -> None:
    job = Job(["a cat", "a dog"], 2)
    before = set(vars(job))
    job.run()
    assert job.n_iter == 2 and set(vars(job)) == before
    assert not any(callable(value) for value in job.extra_generation_params.values())
    assert job.infotext(0)["AsynDM strength"] == "0.7"


def test_a_job_that_failed_in_the_midst_begins_anew() -> None:
    job = Job(["a cat"], 1)
    infotext.record(job, [{"compare_plain": True}])
    plain_pictures.begin(job)
    assert job.n_iter == 2
    plain_pictures.end(job)
    assert job.n_iter == 1 and not plain_pictures.is_plain(job)


@pytest.mark.parametrize(("batches", "drawn"), [(1, 1), (2, 2), (3, 3)])
def test_an_interrupt_leaves_what_there_is(batches: int, drawn: int) -> None:
    job = Job(["a cat", "a dog"], 2).run(interrupt=batches)
    assert len(job.drawn) == drawn and job.n_iter == 2
    assert job.grid["AsynDM strength"] == "0.7"


def test_nothing_to_compare_where_it_was_not_applied() -> None:
    job = Job(["a cat", "a dog"], 2).run(applied=False)
    assert len(job.drawn) == 2, "no plain picture twice"
    assert "this one is the plain one already" in job.comments[-1]
    assert job.infotext(0)["AsynDM"] == "not applied: no attention"


def test_a_script_of_the_menu_gets_what_it_counts_on() -> None:
    job = Job(["a cat"], 1, script=3).run()
    assert len(job.drawn) == 1 and "Script menu" in job.comments[0]


def test_another_extension_changes_the_number_before() -> None:
    """Combinations of a wildcard that are no whole number of batches."""
    job = Job(["a cat", "a dog", "a cow", "a hen"], 2)
    del job.all_prompts[3:]
    job.run()
    assert [drawn[2] for drawn in job.drawn] == [True] * 3
    assert "has changed how many" in job.comments[0]


def test_another_extension_changes_the_number_afterwards() -> None:
    job = Job(["a cat", "a dog"], 2)
    plain_pictures.begin(job)
    job.n_iter, job.all_prompts = 3, ["a cat", "a dog", "a cow"]
    for job.iteration in range(3):
        plain_pictures.begin_batch(job)
        assert not plain_pictures.is_plain(job)
    assert "has changed how many" in job.comments[0] and len(job.comments) == 1


def test_adetailer_s_copies_and_inner_jobs_are_as_plain_as_the_job_around_them() -> None:
    job = Job(["a cat"], 1)
    belonging.begin(job)
    infotext.record(job, [{"compare_plain": True}])
    plain_pictures.begin(job)
    plain_pictures.begin_batch(job)
    plain_pictures.applied(job)
    inner = SimpleNamespace(_ad_inner=True, iteration=0, extra_generation_params={})
    assert not plain_pictures.is_plain(belonging.outer(inner))
    job.iteration, job.prompts = 1, ["a cat"]
    plain_pictures.begin_batch(job)
    plain_pictures.begin_batch(copy.copy(job))  # whose dictionaries are the job's
    assert plain_pictures.is_plain(belonging.outer(inner))
    assert job.infotext(0) == PLAIN and job.infotext(0, True)["AsynDM strength"] == "0.7"
    plain_pictures.end(job)
    belonging.end(job)


def test_the_view_can_be_used_without_a_mouse() -> None:
    html = compared.html()
    assert 'type="range"' in html and html.count("aria-label=") == 4 and 'alt="Without AsynDM"' in html
    assert "src=" not in html, "the page fills it in"
    assert 'src="x"' in slider.html("x", "y", ("a", "b"), ("c", "<d>"), (4, 3)) and "<d>" not in slider.html(
        "x", "y", ("a", "b"), ("c", "<d>"), (4, 3)
    )


def test_the_page_looks_for_what_the_infotext_says() -> None:
    """The two have it once each: Python writes it, the page's script reads it."""
    from pathlib import Path

    script = Path(__file__).resolve().parents[2] / "javascript" / "asyndm_compare.js"
    assert f"'{infotext.PREFIX}: {infotext.PLAIN}'" in script.read_text(encoding="utf-8")
