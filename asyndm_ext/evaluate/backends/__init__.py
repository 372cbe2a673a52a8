"""Where pictures come from: the embedded model, or WebUIs over their API."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol

from asyndm_ext.evaluate.plan import Plan, Unit
from asyndm_ext.evaluate.store import Result


class Backend(Protocol):
    """Makes the pictures of units and saves them in the run's folder."""

    def made_with(self) -> Mapping[str, Any]:
        """What has to be the same for results to be comparable, in JSON types."""

    def check(self, plan: Plan) -> None:
        """Raises ValueError for a plan that it cannot carry out, before anything is made."""

    def run(self, units: Iterable[Unit]) -> Generator[list[Result], None, None]:
        """Carry out the units, in any order; results as soon as they are there. Closing it stops the work."""
