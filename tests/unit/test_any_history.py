"""Whatever the masks do from step to step: finite latents, and sigma 0 at the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.solvers import Changing, Gaussian, randn, sample, sigma_schedule
from torch import Tensor

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.clock.schedule import BaseSchedule
from asyndm_ext.run import StepRecord
from asyndm_ext.solvers import SOLVERS

SHAPE = (1, 2, 2, 3)
MEAN, SPREAD = randn(*SHAPE, seed=31), randn(*SHAPE, seed=32).abs() + 0.2
# Those that choose their levels themselves, need the unguided answer or a flow have a test like this one beside their
# others.
SIGMA_SOLVERS = [
    name
    for name, s in SOLVERS.items()
    if s.space == "sigma" and s.own_schedule is None and not (s.uncond or s.flow_only)
    if name == next(first for first, other in SOLVERS.items() if other is s)
]


def noise(x: Tensor) -> Tensor:
    return torch.ones_like(x) * (-1) ** torch.arange(x.shape[-1])


@pytest.mark.parametrize("name", SIGMA_SOLVERS)
@settings(max_examples=15)
@given(data=st.data())
def test_finite_and_at_zero(name: str, data: st.DataObject) -> None:
    steps = data.draw(st.integers(2, 12))
    curve = data.draw(st.sampled_from(CURVES))
    strength = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1 - 1e-9]), st.floats(0, 1))
    maps = data.draw(st.lists(st.lists(strength, min_size=6, max_size=6), min_size=1, max_size=steps))
    region = Changing([torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 3) for values in maps])
    sigmas = sigma_schedule(data.draw(st.sampled_from(["karras", "exponential", "linear"])), steps)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    x = (randn(*SHAPE, seed=33) * sigmas[0]).to(dtype)
    records: list[StepRecord] = []
    model = Gaussian("sigma", MEAN.to(dtype), SPREAD.to(dtype))
    base = BaseSchedule.from_sigmas(sigmas)
    found = sample(name, base, region, curve, x, model=model, noise=noise, watch=records.append)
    assert bool(found.isfinite().all())
    assert found.abs().max() < 1e3
    assert len(records) == base.steps
    assert base.final == 0.0
    for before, after in pairwise(records):
        assert bool((after.level <= before.level).all())
    assert bool((records[-1].level == float(sigmas[-2])).all()), "all pixels take the last step together"
