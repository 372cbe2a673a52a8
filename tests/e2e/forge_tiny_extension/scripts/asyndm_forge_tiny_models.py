"""Lets Forge and its relatives load the tiny checkpoints: the sizes that they take for granted, made small.

Extensions are loaded before the first checkpoint is, so this needs no change of the WebUI's files. What is swapped is
read from ``forge_sizes.json``, which the writer of the checkpoints uses as well.
"""

import importlib
import importlib.util

# Forge and Forge Neo keep their networks in "backend", Forge Classic and reForge in "ldm_patched".
code = next(name for name in ("backend", "ldm_patched") if importlib.util.find_spec(name))
importlib.import_module(f"asyndm_tiny.{code}_models")
