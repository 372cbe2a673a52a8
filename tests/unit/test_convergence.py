"""Order of convergence with a level per pixel; ``tests/convergence.py`` prints the whole table."""

from __future__ import annotations

import pytest
from convergence import CASES, error, orders


@pytest.mark.parametrize("coupling", [0.0, 0.4], ids=["alone", "coupled"])
@pytest.mark.parametrize(("name", "options", "order"), CASES)
def test_the_error_falls_at_the_solvers_order(name: str, options: dict, order: float, coupling: float) -> None:
    errors = [error(name, options, coupling, 0.8, steps) for steps in (40, 80, 160)]
    assert orders(errors)[-1] > order - 0.2
    assert errors[-1] < 3 * error(name, options, coupling, 0.0, 160), "a map costs more than its steeper end explains"
