"""FID and KID: their formulas, their intervals, and what is kept of a run that was stopped."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from asyndm_ext.evaluate.distances import GROUPS, Distance, Reference, fid, groups_of, kid
from asyndm_ext.evaluate.features import Features, fingerprint
from asyndm_ext.evaluate.main import main
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.report_distances import section
from asyndm_ext.evaluate.sets import Row
from tests.support.evaluation import CONDITIONS

RNG = np.random.default_rng(0)


def some(count, wide, shift=0.0):
    mixing = np.random.default_rng(wide).normal(size=(wide, wide)) / wide**0.5
    return RNG.normal(size=(count, wide)) @ mixing + shift


def frechet(a, b):
    """By the definition, with a matrix root."""
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    away = a.mean(axis=0) - b.mean(axis=0)
    return away @ away + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)


def discrepancy(a, b):
    """By the definition, pair by pair."""

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [sum(k(x, y) for i, x in enumerate(c) for j, y in enumerate(c) if i != j) for c in (a, b)]
    across = sum(k(x, y) for x in a for y in b)
    n, m = len(a), len(b)
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * across / (n * m)


# --- the formulas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "wide"), [(60, 12), (40, 40), (200, 8)])
def test_fid_is_its_definition(count, wide):
    rows, others = some(count, wide, 3.0), some(150, wide)
    # Fewer pictures than features, whose covariance has no whole rank, are below.
    assert fid(rows, Reference.of_rows(others)).value == pytest.approx(frechet(rows, others), rel=1e-6)
    statistics = Reference.of_statistics(others.mean(axis=0), np.cov(others.T))
    assert fid(rows, statistics).value == pytest.approx(frechet(rows, others), rel=1e-6)


def test_features_that_are_always_0_change_nothing():
    """Fewer pictures than features go another way to the eigenvalues."""
    rows, others = some(60, 12, 1.0), some(100, 12)
    wider = [np.pad(one, ((0, 0), (0, 70))) for one in (rows, others)]
    assert fid(wider[0], Reference.of_rows(wider[1])).value == pytest.approx(fid(rows, Reference.of_rows(others)).value)


def test_fid_of_the_reference_itself_is_nothing():
    rows = some(90, 10, 100.0)
    assert fid(rows, Reference.of_rows(rows)).value == pytest.approx(0, abs=1e-6)


def test_kid_is_its_definition():
    rows, others = some(25, 6, 0.5), some(30, 6)
    assert kid(rows, Reference.of_rows(others)).value == pytest.approx(discrepancy(rows, others), rel=1e-9)
    with pytest.raises(ValueError, match="KID needs the reference's pictures"):
        kid(rows, Reference.of_statistics(others.mean(axis=0), np.cov(others.T)))


@pytest.mark.parametrize("wide", [10, 200])
@pytest.mark.parametrize("measure", [fid, kid])
def test_without_a_group_is_the_distance_of_the_others(measure, wide):
    rows, reference = some(100, wide, 0.3), Reference.of_rows(some(300, wide))
    groups = groups_of([str(n) for n in range(100)])
    found = measure(rows, reference, groups)
    for k in (0, GROUPS - 1):
        assert found.without[k] == pytest.approx(measure(rows[groups != k], reference).value, rel=1e-8)


def test_what_is_no_reference():
    with pytest.raises(ValueError, match="no mean and covariance"):
        Reference.of_statistics(np.zeros(3), np.eye(4))
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Reference.of_rows(np.zeros((1, 4)))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_pictures_of_a_prompt_are_left_out_together():
    labels = [f"prompt {n % 25}" for n in range(75)]
    groups = groups_of(labels)
    assert groups is not None and set(groups) == set(range(GROUPS))
    assert all(len({g for g, label in zip(groups, labels, strict=True) if label == one}) == 1 for one in labels)
    assert groups_of(labels[: GROUPS - 1]) is None


def test_the_interval_of_a_difference_holds_its_mean():
    """And is narrow where the pictures of both methods are alike, as they are from the same noise."""
    rng = np.random.default_rng(1)
    reference = Reference.of_statistics(np.zeros(8), np.eye(8))
    groups = groups_of([str(n) for n in range(200)])

    def apart():
        noise = rng.normal(size=(200, 8))
        other = 1.2 * noise + 0.3 * rng.normal(size=noise.shape)
        return fid(other, reference, groups) - fid(noise, reference, groups), fid(noise, reference, groups)

    runs = [apart() for _ in range(120)]
    truth = np.mean([difference.value for difference, _ in runs])
    held = np.mean([low < truth < high for low, high in (difference.interval for difference, _ in runs)])
    assert 0.88 < held <= 1
    same = runs[0][1] - runs[0][1]
    assert same.value == 0 and same.interval == (0, 0)
    assert all(math.isnan(end) for end in fid(some(10, 3), Reference.of_rows(some(10, 3))).interval)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_rows_come_back_after_a_kill(tmp_path):
    path = tmp_path / "seen"
    rows = RNG.normal(size=(5, 4)).astype(np.float32)
    keys = [("a cat", n, "plain") for n in range(5)]
    Features(path, 4, "w").add(keys[:3], rows[:3])
    with path.with_suffix(".f32").open("ab") as file:  # two rows were written, their keys not
        file.write(rows[3:].tobytes()[:-3])
    known = Features(path, 4, "w")
    assert keys[2] in known and keys[3] not in known
    known.add(keys[3:], rows[3:])
    again = Features(path, 4, "w")
    assert np.array_equal(again.rows(reversed(keys)), rows[::-1])
    with path.with_suffix(".jsonl").open("ab") as file:
        file.write(b'["a dog", 1, "pl')
    assert np.array_equal(Features(path, 4, "w").rows(keys), rows)
    path.with_suffix(".f32").write_bytes(rows[:2].tobytes())
    assert keys[2] not in Features(path, 4, "w")
    with pytest.raises(ValueError, match="made with other weights"):
        Features(path, 4, "others")
    with pytest.raises(ValueError, match="2 rows of 4 numbers"):
        again.add(keys[:2], rows[:1])


def test_a_files_fingerprint_is_of_its_content(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 2_999_999 + b"y")
    assert fingerprint(one) != fingerprint(other) == fingerprint(other)


# --- the command, with a judge that is small ------------------------------------------------------------------------

JUDGE = '''
from pathlib import Path
import numpy as np

class Judge:
    """Colours at 26 x 26 places, and nothing else, instead of a network."""
    name, columns, fingerprint = "inception", (), "mine"
    seen = 0

    def __init__(self, reference):
        self.reference = Path(reference)

    def features(self, pictures):
        Judge.seen += len(pictures)
        small = [np.asarray(p.resize((26, 26)), dtype=np.float32).ravel() / 255 for p in pictures]
        return np.stack([np.pad(one, (0, 2048 - len(one))) for one in small])
'''


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with random weights in a smaller network."""
    pytest.importorskip("diffusers")
    from tests.support.small_world import save_small

    return save_small(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def evaluate(weights):
    def run(command):
        return main(["--weights", str(weights), *command.split()])

    return run


@pytest.fixture
def judge(tmp_path, monkeypatch):
    (tmp_path / "tiny_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for n in range(6):
        Image.fromarray(RNG.integers(0, 255, (40, 60, 3), np.uint8)).save(photographs / f"{n}.png")
    (photographs / "notes.txt").write_text("no picture")
    return photographs


def test_the_report_has_both_and_looks_at_a_picture_once(tmp_path, judge, evaluate):
    command = f"--prompts 6 --kind usual --seeds 2 --methods concave --steps 5 --out {tmp_path / 'run'} --true-scenes 0"
    metric = f"--metric tiny_judge:Judge:reference={judge}"
    assert evaluate(f"{command} {metric}") == 0
    tiny = importlib.import_module("tiny_judge")
    assert tiny.Judge.seen == 6 * 2 * 2 + 6
    rows = list(csv.DictReader((tmp_path / "run" / "distances.csv").open()))
    assert [(row["method"], row["distance"], row["pictures"], row["pairs"]) for row in rows] == [
        ("plain", "FID", "12", ""),
        ("plain", "KID x 1000", "12", ""),
        ("concave", "FID", "12", "12"),
        ("concave", "KID x 1000", "12", "12"),
    ]
    assert float(rows[2]["difference"]) == pytest.approx(float(rows[2]["value"]) - float(rows[0]["value"]), abs=1e-2)
    assert rows[2]["difference low"] == "", "12 pictures have no interval"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "FID and KID" in page and "the pictures in photographs" in page
    assert evaluate(f"{command} {metric} --seeds 4") == 0
    assert tiny.Judge.seen == 6 * 4 * 2 + 6, "only the new pictures"
    rows = list(csv.DictReader((tmp_path / "run" / "distances.csv").open()))
    assert float(rows[2]["difference low"]) < float(rows[2]["difference"]) < float(rows[2]["difference high"])


def test_a_file_of_statistics_has_no_kid(tmp_path, judge, evaluate):
    np.savez(tmp_path / "coco.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    command = f"--prompts 2 --kind usual --methods concave --steps 2 --out {tmp_path / 'run'} --true-scenes 0"
    assert evaluate(f"{command} --metric tiny_judge:Judge:reference={tmp_path / 'coco.npz'}") == 0
    rows = list(csv.DictReader((tmp_path / "run" / "distances.csv").open()))
    assert {row["distance"] for row in rows} == {"FID"}
    assert "Statistics alone have no KID" in (tmp_path / "run" / "report.html").read_text()


def test_a_broken_reference_is_told_and_the_report_written(tmp_path, judge, evaluate, capsys):
    np.savez(tmp_path / "coco.npz", mean=np.zeros(2048))
    command = f"--prompts 2 --kind usual --methods concave --steps 2 --out {tmp_path / 'run'} --true-scenes 0"
    assert evaluate(f"{command} --metric tiny_judge:Judge:reference={tmp_path / 'coco.npz'}") == 0
    assert "cannot be a reference" in capsys.readouterr().err
    assert "In numbers" in (tmp_path / "run" / "report.html").read_text()


def test_the_papers_numbers_stand_beside_ours():
    plan = lay_out(["plain", "asyndm"], {"strength": [0.7]}, CONDITIONS)
    near, far = Distance(10.0, np.linspace(9, 11, GROUPS)), Distance(12.0, np.linspace(11, 14, GROUPS))
    rows = [Row(plan[0], 20, {"fid": near}, 0, {}), Row(plan[1], 20, {"fid": far}, 20, {"fid": far - near})]
    text = section(rows, Path("coco.npz"), "fid30k")
    assert "FID: paper" in text and "48.63" in text and "49.38" in text and "49.29" not in text
    low, high = (far - near).interval
    assert f"+2.00<small>[{low:+.2f} to {high:+.2f}]" in text
    assert "FID: paper" not in section(rows, Path("coco.npz"), "table1") and section([], Path("coco.npz")) == ""
