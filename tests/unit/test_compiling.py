"""Whether torch compiles here: told by a process of its own, since it is asked of the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch._dynamo")

ASKED = """
import torch
from asyndm_ext.machine.compiling import is_compiling, may_compile

print(may_compile())
import torch._dynamo  # as diffusers does
print(may_compile())
compiled = torch.compile(lambda x: (x + 1, is_compiling()), backend="eager")
print(may_compile())
print(compiled(torch.ones(1))[1], is_compiling())
"""


def test_it_is_told_before_anything_is_compiled() -> None:
    answer = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False", "True", "True", "False"], answer.stderr
