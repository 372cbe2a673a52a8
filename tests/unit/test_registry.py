"""A solver is known by the last lines of its own file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asyndm_ext import solvers
from asyndm_ext.solvers import FUNCTIONS, SOLVERS, Solver
from asyndm_ext.solvers.labels import LISTED
from asyndm_ext.solvers.registry import KINDS, Row, rows_of, tables_of

PACKAGE = Path(solvers.__file__).parents[1]

MINE = """
from asyndm_ext.solvers.registry import Row
from asyndm_ext.solvers.solver import Solver


def sample_mine(run, x, eta=1.0):
    return x


REGISTERED = (Row(Solver(sample_mine, "sigma", ("eta",)), labels=("Mine",), functions=("sample_mine",)),)
"""

ASK = """
import sys, types
sys.path.insert(0, sys.argv[1])
from asyndm_ext.solvers.resolve import solver_for
from asyndm_ext.solvers import SOLVERS
space = {"__name__": "modules.k_diffusion.sampling"}
exec("def sample_mine(model, x, sigmas, eta=1.0): return x", space)
found = solver_for("A label that nobody knows", space["sample_mine"])
assert found is SOLVERS["Mine"] is solver_for("Mine", None)
print(found.sample.__module__, found.options, list(SOLVERS)[-1], len(SOLVERS))
"""


def copied(into: Path) -> Path:
    shutil.copytree(PACKAGE, into / "asyndm_ext", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    return into / "asyndm_ext" / "solvers"


def answer(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ASK, path]
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent, check=False)


@pytest.mark.parametrize("archived", [False, True])
def test_a_new_solver_is_one_file(tmp_path: Path, archived: bool) -> None:
    where = tmp_path / "there"
    (copied(where) / "mine.py").write_text(MINE, encoding="utf-8")
    if archived:
        where = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", where))
    found = answer(where)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["asyndm_ext.solvers.mine", "('eta',)", "Mine", str(len(SOLVERS) + 1)]


def test_a_name_that_another_solver_has_stops_the_import(tmp_path: Path) -> None:
    there = copied(tmp_path / "there")
    (there / "mine.py").write_text(MINE.replace('"Mine"', '"Euler"'), encoding="utf-8")
    found = answer(tmp_path / "there")
    assert found.returncode != 0
    assert (
        "ValueError: two solvers are registered for 'Euler' (labels): in asyndm_ext.solvers.euler and in"
        in found.stderr
    )


def solver() -> Solver:
    return Solver(lambda run, x: x, "sigma")


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_stands_for_two(kind: str) -> None:
    rows = [("one", Row(solver(), **{kind: ("A",)})), ("other", Row(solver(), **{kind: ("B", "A")}))]
    with pytest.raises(ValueError, match=rf"'A' \({kind}\): in one and in other"):
        tables_of(rows)
    with pytest.raises(ValueError, match="in one and in one"):
        tables_of([("one", Row(solver(), **{kind: ("A", "A")}))])


def test_a_label_and_a_function_may_be_called_the_same() -> None:
    first, second = solver(), solver()
    tables = tables_of([("one", Row(first, labels=("A",))), ("other", Row(second, functions=("A",), flow=("A",)))])
    assert tables["labels"] == {"A": first}
    assert tables["functions"] == tables["flow"] == {"A": second}


def test_labels_come_in_the_order_of_the_list_and_new_ones_after_it() -> None:
    rows = [("one", Row(solver(), labels=("new", "last", "first"))), ("other", Row(solver(), labels=("newer",)))]
    assert list(tables_of(rows, ("first", "absent", "last"))["labels"]) == ["first", "last", "new", "newer"]
    assert set(LISTED) <= set(SOLVERS) and len(set(LISTED)) == len(LISTED)
    assert list(SOLVERS)[: len(LISTED)] == list(LISTED)


def test_every_solver_is_registered_beside_its_formula() -> None:
    """A row's solver is a function of the same file, or one that is wrapped there."""
    for file, row in rows_of(solvers.__name__, solvers.__path__):
        sample = row.solver.sample
        inner = getattr(sample, "func", sample)
        if inner.__closure__ and not hasattr(inner, "__wrapped__"):  # in half-log-SNR
            (inner,) = (cell.cell_contents for cell in inner.__closure__)
            inner = getattr(inner, "func", inner)
        assert inner.__module__ == file
        assert any(getattr(row, kind) for kind in KINDS), f"{inner} is called by nobody"


def test_forms_are_of_functions_that_are_known() -> None:
    for kind in KINDS[2:]:
        assert set(getattr(solvers, kind.upper())) <= set(FUNCTIONS)
