"""Fresh noise comes from where the host's sampler function itself draws it: hosts may have several k-diffusions."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch
from support.kdiffusion import k_diffusion
from torch import Tensor

from asyndm_ext.solvers import SOLVERS

LIKE = torch.zeros(1, 4, 2, 2)


class Job:
    """What a host puts in the place of ``torch``, behind whose ``randn_like`` is the job's generator."""

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def randn_like(self, like: Tensor) -> Tensor:
        return torch.full_like(like, self.mark)

    def randn(self, *size: Any, **options: Any) -> Tensor:
        return torch.full(LIKE.shape, -self.mark)


CORE = """
def default_noise_sampler(x, seed=None):
    return lambda sigma, sigma_next: {draw}

class BrownianTreeNoiseSampler:
    def __init__(self, x, low, high{cpu}):
        self.made = (float(low), float(high){cpu_is})

def sample_euler(model, x, sigmas):
    return x + torch.randn_like(x)

def sample_euler_ancestral(model, x, sigmas):
    return default_noise_sampler(x)

def sample_euler_cfg_pp(model, x, sigmas):
    return sample_euler_ancestral(model, x, sigmas)

def sample_dpm_fast(model, x):
    return DPMSolver(model)
"""
WEBUI_S = """
def restart_sampler(model, x, sigmas):
    return x + {sampling}.torch.randn_like(x)

def sample_lcm(model, x, sigmas):
    return default_noise_sampler(x)

def sample_euler_negative(model, x, sigmas):
    return x + torch.randn_like(x)
"""


def module(name: str, source: str, **names: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(names)
    exec(source, vars(made))
    vars(made)["BrownianTreeNoiseSampler"] = vars(made).get("BrownianTreeNoiseSampler")
    return made


def core(name: str, mark: float, draw: str = "torch.randn_like(x)", cpu: bool = False) -> types.ModuleType:
    source = CORE.format(draw=draw, cpu=", cpu=False" if cpu else "", cpu_is=", cpu" if cpu else "")
    return module(name, source, torch=Job(mark))


@pytest.fixture
def solvers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ours, in a host whose importable k-diffusion is not the one that its samplers are of."""
    package = types.ModuleType("k_diffusion")
    package.__spec__ = ModuleSpec("k_diffusion", None)
    package.sampling = core("k_diffusion.sampling", 1.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    monkeypatch.setitem(sys.modules, "k_diffusion.sampling", package.sampling)  # type: ignore[attr-defined]
    name = "asyndm_ext.hosts.webui.solvers"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module(name)
    sys.modules.pop(name, None)


def drawn(solvers: Any, function: Callable[..., Any]) -> float:
    (value,) = solvers.noise_source(function)(LIKE).unique().tolist()
    return value


def test_a_k_diffusion_s_own_functions(solvers: Any) -> None:
    sampling = sys.modules["k_diffusion.sampling"]
    for name in ("sample_euler", "sample_euler_ancestral", "sample_euler_cfg_pp", "sample_dpm_fast"):
        assert drawn(solvers, getattr(sampling, name)) == 1.0, name


def test_another_k_diffusion_than_the_one_that_can_be_imported(solvers: Any) -> None:
    """reForge's, whose default draws from torch's generator and whose churn from the job's."""
    other = core("ldm_patched.k_diffusion.sampling", 2.0, "torch.randn(x.size())")
    assert drawn(solvers, other.sample_euler) == 2.0
    for name in ("sample_euler_ancestral", "sample_euler_cfg_pp", "sample_dpm_fast"):
        assert drawn(solvers, getattr(other, name)) == -2.0, name


def test_a_webui_s_own_functions_draw_from_the_k_diffusion_that_they_know(solvers: Any) -> None:
    other = core("ldm_patched.k_diffusion.sampling", 3.0)
    names = {"sampling": other, "default_noise_sampler": other.default_noise_sampler, "torch": Job(9.0)}
    lcm = module("modules.sd_samplers_lcm", WEBUI_S.format(sampling="sampling"), **names)
    assert drawn(solvers, lcm.sample_lcm) == 3.0
    assert drawn(solvers, lcm.restart_sampler) == 3.0
    package = types.SimpleNamespace(sampling=other)
    extra = module("modules.sd_samplers_extra", WEBUI_S.format(sampling="k_diffusion.sampling"), k_diffusion=package)
    assert drawn(solvers, extra.restart_sampler) == 3.0


def test_a_module_that_draws_by_itself(solvers: Any) -> None:
    smea = module("modules.sd_samplers_kdiffusion_smea", WEBUI_S.format(sampling="sampling"), torch=Job(4.0))
    assert drawn(solvers, smea.sample_euler_negative) == 4.0
    assert drawn(solvers, print) == 1.0, "of a function that we do not know"


@pytest.mark.parametrize("cpu", [False, True])
def test_the_tree_is_the_function_s_own(solvers: Any, cpu: bool) -> None:
    other = core("ldm_patched.k_diffusion.sampling", 5.0, cpu=cpu)
    sigmas = torch.tensor([8.0, 2.0, 0.5, 0.0])
    solver = SOLVERS["DPM++ SDE"]
    tree = solvers.brownian_tree(solver, other.sample_euler, LIKE, {"sigmas": sigmas, "noise_sampler": None})
    assert isinstance(tree, other.BrownianTreeNoiseSampler)
    assert tree.made == (0.5, 8.0, *([True] if cpu else []))
    assert solvers.brownian_tree(solver, other.sample_euler, LIKE, {"sigmas": sigmas, "noise_sampler": print}) is print
    assert solvers.brownian_tree(SOLVERS["Euler"], other.sample_euler, LIKE, {"sigmas": sigmas}) is None


def test_the_real_one() -> None:
    sampling, _ = k_diffusion()
    assert {"torch", "randn_like"} <= set(sampling.sample_euler.__wrapped__.__code__.co_names)
    assert "default_noise_sampler" in sampling.sample_euler_ancestral.__wrapped__.__code__.co_names
