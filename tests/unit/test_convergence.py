"""Order of convergence with a level per pixel; ``tests/convergence.py`` prints the whole table."""

from __future__ import annotations

import pytest
from convergence import KINDS, error, orders


@pytest.mark.parametrize("coupling", [0.0, 0.4], ids=["alone", "coupled"])
@pytest.mark.parametrize(("case", "kind"), KINDS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_the_error_falls_at_the_solvers_order(case: tuple[str, dict, float], kind: str, coupling: float) -> None:
    name, options, order = case
    errors = [error(name, options, coupling, 0.8, steps, kind) for steps in (40, 80, 160)]
    assert orders(errors)[-1] > order - 0.2
    uniform = error(name, options, coupling, 0.0, 160, kind)
    assert errors[-1] < max(3 * uniform, 1e-5), "a map costs more than its steeper end explains"
