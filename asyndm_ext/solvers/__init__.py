"""Solvers, elementwise: the host's formulas with a level per pixel.

To add one: write a function ``sample_x(run, x, **options)``, in the file of its family or in a new one, and a row for
it in ``REGISTERED``, the last lines of that file (:class:`asyndm_ext.solvers.registry.Row`). ``options`` are the host's
keyword arguments that the solver takes; the host keeps handing over what it finds in its own function's signature.

A host finds its solver with :func:`asyndm_ext.solvers.resolve.solver_for`, which also knows the hosts' function names
and the forms that some hosts' functions take on a rectified flow. What is not here, and why: :data:`LEFT_OUT`.
"""

from __future__ import annotations

from asyndm_ext.solvers.labels import LEFT_OUT, LISTED
from asyndm_ext.solvers.registry import rows_of, tables_of
from asyndm_ext.solvers.solver import Solver

__all__ = ["COMFY", "DENOISE_LAST", "FLOW", "FUNCTIONS", "LEFT_OUT", "LEVELS", "SNR", "SOLVERS", "Solver"]

_tables = tables_of(rows_of(__name__, __path__), LISTED)

SOLVERS = _tables["labels"]
"""By the host's name for the sampler."""

# By the host's function; see asyndm_ext.solvers.registry.Row.
FUNCTIONS = _tables["functions"]
FLOW = _tables["flow"]
SNR = _tables["snr"]
LEVELS = _tables["levels"]
COMFY = _tables["comfy"]
DENOISE_LAST = _tables["denoise_last"]
