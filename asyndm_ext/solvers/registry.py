"""Which solver is whose: every solver's file says it in its last lines, and here it is put together.

    REGISTERED = (
        Row(Solver(sample_mine, "sigma", ANCESTRAL), labels=("Mine",), functions=("sample_mine",)),
    )

Nothing else is needed: all files of the package are looked through.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from asyndm_ext.solvers.solver import Solver

Table = dict[str, Solver]


@dataclass(frozen=True)
class Row:
    """A solver and what the hosts call it.

    Attributes:
        labels: names in the hosts' lists of samplers.
        functions: the hosts' functions behind labels that we don't know.
        flow: functions that hand over to this one, or become it, on a rectified flow; of some hosts.
        snr: functions of which this is the form that counts in half-log-SNR, for any kind of model.
        levels: functions that work with noise levels under a label that is another host's for timesteps.
        comfy: functions that are this one in hosts whose functions are ComfyUI's.
        denoise_last: functions that are this one, which takes the model's answer for its last step, where they look
            for that step.
    """

    solver: Solver
    labels: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    flow: tuple[str, ...] = ()
    snr: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    comfy: tuple[str, ...] = ()
    denoise_last: tuple[str, ...] = ()


KINDS = tuple(field.name for field in fields(Row) if field.name != "solver")
"""What a name can be of."""


def rows_of(package: str, path: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """``REGISTERED`` of all files of a package, with the files' names; also of one in an archive."""
    for name in sorted(module.name for module in pkgutil.iter_modules(path)):
        file = importlib.import_module(f"{package}.{name}")
        yield from ((file.__name__, row) for row in getattr(file, "REGISTERED", ()))


def tables_of(rows: Iterable[tuple[str, Row]], order: Sequence[str] = ()) -> dict[str, Table]:
    """A solver for each name, for each of :data:`KINDS`.

    Args:
        order: of labels; others come after these.

    Raises:
        ValueError: a name that stands for two.
    """
    tables: dict[str, Table] = {kind: {} for kind in KINDS}
    owners: dict[tuple[str, str], str] = {}
    for file, row in rows:
        for kind in KINDS:
            for name in getattr(row, kind):
                owner = owners.setdefault((kind, name), file)
                if name in tables[kind]:
                    raise ValueError(f"two solvers are registered for {name!r} ({kind}): in {owner} and in {file}")
                tables[kind][name] = row.solver
    labels = tables["labels"]
    tables["labels"] = {name: labels[name] for name in dict.fromkeys([*order, *labels]) if name in labels}
    return tables
