"""The authors' code, reproduced: states, masks, attention, network output and latents of every recorded case."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import FOLDER, Case, cases_of, reproduce

CASES = cases_of(FOLDER)


def test_there_are_cases() -> None:
    assert CASES, f"no traces in {FOLDER / 'public'}"


@pytest.mark.parametrize("path", CASES, ids=[p.stem for p in CASES])
def test_case(path: Path) -> None:
    reproduce(Case(path))
