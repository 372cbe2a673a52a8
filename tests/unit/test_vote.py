"""People's votes: what the page shows and hides, and what is made of the files that come back."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from asyndm_ext.evaluate import vote
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary
from asyndm_ext.evaluate.vote import KEY, PAGE, Group, Votes, groups_of, read, section, write
from tests.support.evaluation import CONDITIONS, SHARE

SETTINGS = {"strength": [0.7], "curve": ["quadratic"]}
COLOURS = {"plain": (255, 0, 0), "concave": (0, 255, 0), "asyndm": (0, 0, 255)}


@pytest.fixture
def run(tmp_path):
    """40 pairs of two kinds with a picture of each method's colour."""
    prompts = [Prompt(f"a <b>cat</b> {n} & a dog", "some" if n % 2 else "others") for n in range(40)]
    plan = Plan(prompts, lay_out(["concave", "asyndm"], SETTINGS, CONDITIONS))
    results = {}
    for pair in plan.pairs:
        for method in plan.methods:
            name = f"{method.kind}-{pair.seed}.png"
            Image.new("RGB", (16, 16), COLOURS[method.kind]).save(tmp_path / name)
            results[pair.key(method)] = Result(pair.prompt.text, pair.seed, method.id, picture=name)
    return Summary(plan, results, [SHARE], resamples=200), tmp_path


def data_of(folder):
    text = (folder / PAGE).read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def colour_of(url):
    import base64
    import io

    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as picture:
        return int(np.argmax(np.asarray(picture.convert("RGB"))[8, 8]))


def test_groups_are_shuffled_by_the_seed_and_as_many_of_each_kind(run):
    summary, folder = run
    methods = summary.plan.methods
    groups = groups_of(summary, folder, methods, 20, seed=3)
    assert groups == groups_of(summary, folder, methods, 20, seed=3) != groups_of(summary, folder, methods, 20, seed=4)
    assert len({(g.prompt, g.seed) for g in groups}) == 20 and sum(g.seed % 2 for g in groups) == 10
    orders = {group.methods for group in groups_of(summary, folder, methods, 40, seed=0)}
    assert len(orders) == 6 and all(sorted(order) == sorted(m.id for m in methods) for order in orders)
    assert len(groups_of(summary, folder, methods, 500, seed=0)) == 40
    for wrong in (methods[:1], methods * 3):
        with pytest.raises(ValueError, match="between 2 to 6 methods"):
            groups_of(summary, folder, wrong, 5, seed=0)
    (folder / "plain-0.png").unlink()
    assert len(groups_of(summary, folder, methods, 500, seed=0)) == 39


def test_the_page_does_not_say_whose_a_picture_is(run):
    summary, folder = run
    assert write(summary, folder, summary.plan.methods, 12, seed=1) == folder / PAGE
    text, data = (folder / PAGE).read_text(encoding="utf-8"), data_of(folder)
    for word in ("asyndm ", "concave", "strength", "seed", "http"):
        assert word not in re.sub(r"asyndm vote", "", text).split('id="data"')[1].split("</script>")[0]
    assert len(data["groups"]) == 12 and "<b>cat" in data["groups"][0]["prompt"]
    assert text.count("</script>") == 2, "a prompt ends the script"
    key = json.loads((folder / KEY).read_text(encoding="utf-8"))[data["page"]]
    for group, own in zip(data["groups"], key, strict=True):
        kinds = [method.split()[0] for method in own["methods"]]
        assert [list(COLOURS)[colour_of(url)] for url in group["pictures"]] == kinds
        assert group["prompt"] == own["prompt"]


def voted(folder, page, voter, votes, name=None):
    (folder / "votes").mkdir(exist_ok=True)
    path = folder / "votes" / f"{name or voter}.json"
    path.write_text(json.dumps({"page": page, "voter": voter, "votes": votes}), encoding="utf-8")


def test_files_that_come_back_are_read_with_the_key(run):
    summary, folder = run
    write(summary, folder, summary.plan.methods, 4, seed=1)
    page = data_of(folder)["page"]
    key = json.loads((folder / KEY).read_text(encoding="utf-8"))[page]
    voted(folder, page, "Ann", [[0, 2], [1, -1]])
    voted(folder, page, "Bob", [[0, 0], [3, 1]])
    voted(folder, page, "Bob", [[3, 2]], name="Bob later")
    voted(folder, "another", "Eve", [[0, 0]])
    (votes,) = read(folder)
    assert votes.choices == {
        "Ann": {0: key[0]["methods"][2], 1: ""},
        "Bob": {0: key[0]["methods"][0], 3: key[3]["methods"][2]},
    }
    assert votes.count == 4
    write(summary, folder, summary.plan.methods[:2], 4, seed=2)  # another page; the first one's votes stay
    assert len(read(folder)) == 1 and len(json.loads((folder / KEY).read_text(encoding="utf-8"))) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"page": 1}', "[[0, 9]]", "[[99, 0]]", "[[-1, 0]]", "[[0, -2]]", "[3]"])
def test_other_files_are_refused_by_name(run, text):
    summary, folder = run
    write(summary, folder, summary.plan.methods, 4, seed=1)
    voted(folder, data_of(folder)["page"], "Ann", json.loads(text) if text[:2] in ("[[", "[3") else [])
    if text[:2] not in ("[[", "[3"):
        (folder / "votes" / "Ann.json").write_text(text)
    with pytest.raises(ValueError, match=r"Ann\.json is not a voter's file"):
        read(folder)


def test_nothing_was_asked(tmp_path):
    assert read(tmp_path) == [] and section([], {}) == ""


def many(chosen, groups=60, voters=("a", "b")):
    """Votes in which the second method is chosen as ``chosen`` says, ``(group, voter)`` to index or -1."""
    own = [Group(f"p{n}", n, ("plain", "asyndm", "concave")) for n in range(groups)]
    choices = {
        voter: {n: ("", *own[n].methods)[chosen(n, number) + 1] for n in range(groups)}
        for number, voter in enumerate(voters)
    }
    return Votes(own, choices)


def test_shares_and_preference():
    votes = many(lambda n, voter: 1 if n % 3 else -1)
    assert votes.shares("asyndm").mean() == pytest.approx((2 / 3) + (1 / 3) / 3)
    assert votes.shares("plain").mean() == pytest.approx(1 / 9)
    d = votes.preference("asyndm", "plain")
    assert d.difference == pytest.approx(2 / 3) and d.low > 0.5 and d.clear
    low, high = votes.interval("asyndm")
    assert low < votes.shares("asyndm").mean() < high
    assert votes.agreement() == (1.0, 1.0)
    assert np.isnan(Votes(votes.groups, {"a": {0: "plain"}}).shares("plain")[1:]).all()


def test_more_voters_are_no_more_groups():
    """Ten voters who all say the same of 30 groups tell no more about other groups than one does."""
    one, ten = (many(lambda n, voter: n % 2, groups=30, voters=range(k)) for k in (1, 10))
    assert one.interval("asyndm") == ten.interval("asyndm")


def test_agreement_is_fleiss_kappa():
    """The example of Fleiss (1971) cut to three answers, worked out by hand."""
    table = np.array([[5, 0, 0, 0], [2, 3, 0, 0], [0, 3, 2, 0], [1, 1, 3, 0], [0, 0, 0, 5]])
    groups = [Group(f"p{n}", n, ("x", "y", "z")) for n in range(5)]
    answers = [[name for name, k in zip(("x", "y", "z", ""), row, strict=True) for _ in range(k)] for row in table]
    votes = Votes(groups, {str(v): {n: answers[n][v] for n in range(5)} for v in range(5)})
    each = ((table**2).sum(axis=1) - 5) / 20
    chance = ((table.sum(axis=0) / 25) ** 2).sum()
    same, kappa = votes.agreement()
    assert same == pytest.approx(each.mean()) and kappa == pytest.approx((each.mean() - chance) / (1 - chance))
    assert many(lambda n, voter: 0, voters=("a",)).agreement() is None


def test_votes_in_the_report():
    labels = {"plain": "plain", "asyndm": "asyndm", "concave": "concave"}
    html = section([many(lambda n, voter: 1 if (n + voter) % 3 else 0)], labels)
    assert html.index("<th>asyndm") < html.index("<th>plain") < html.index("<th>concave")
    assert "120 votes of 2 voters on 60 of 60 groups" in html and "Fleiss" in html and "nan" not in html
    assert re.search(r"asyndm</th>.*?66\.7 %<small>\[.*?\+33\.3<small>\[", html)
    few = section([many(lambda n, voter: 1, groups=5, voters=("a",))], labels)
    assert "100.0 %" in few and "<small>" not in few and "1 voter on 5 of 5" in few and "One voter alone" in few
    assert vote.section([Votes([Group("p", 1, ("x", "y"))], {})], {}) == ""
