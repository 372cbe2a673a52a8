"""Which solver a host's sampler is."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.kdiffusion import k_diffusion
from support.solvers import percent_to_sigma, run_solver, schedule_for, start_of

from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.solvers import COMFY, DENOISE_LAST, FLOW, FUNCTIONS, LEFT_OUT, SNR, SOLVERS
from asyndm_ext.solvers.half_log_snr import snr_schedule
from asyndm_ext.solvers.resolve import host_function, solver_for


def host(source: str, module: str = "k_diffusion.sampling", **names: Any) -> Callable:
    """A function as a host's module defines it."""
    space: dict[str, Any] = {"__name__": module, "torch": torch, **names}
    exec(source, space)
    return next(value for key, value in reversed(space.items()) if isinstance(value, types.FunctionType))


EULER_A = "def sample_euler_ancestral(model, x, sigmas, eta=1.0): return x"


def test_the_label_comes_first() -> None:
    for label, solver in SOLVERS.items():
        assert solver_for(label, host(EULER_A), flow=True) is solver


def test_an_unknown_label_is_resolved_by_its_function() -> None:
    """Forge Classic's labels carry the schedule type."""
    function = host(EULER_A)
    assert solver_for("Euler A SGMUniform", function) is SOLVERS["Euler a"]
    karras = host("def sample_lcm(model, x, sigmas): return x", "ldm_patched.k_diffusion.sampling")
    assert solver_for("LCM Karras", karras) is SOLVERS["LCM"]
    assert solver_for("My sampler", host("def sample_mine(model, x, sigmas): return x")) is None
    smea = host("def sample_euler_dy(model, x, sigmas): return x", "modules.sd_samplers_kdiffusion_smea")
    assert solver_for("Euler Dy", smea) is None
    assert "Euler Dy" in LEFT_OUT


def test_a_function_of_the_same_name_elsewhere_is_another() -> None:
    assert solver_for("Somebody's Euler a", host(EULER_A, "extensions.mine.samplers")) is None


def test_wrappers_and_partials_are_seen_through() -> None:
    inner = host(EULER_A)

    @functools.wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    decorated = torch.no_grad()(inner)
    for function in (wrapped, decorated, functools.partial(inner, eta=0.5), functools.partial(wrapped, eta=0.5)):
        assert host_function(function) is inner
        assert solver_for("?", function) is SOLVERS["Euler a"]
    assert solver_for("?", functools.partial(inner, None)) is None, "its arguments are shifted"
    assert solver_for("?", print) is None
    assert solver_for("?", types.MethodType(inner, object())) is None


def host_function_of(function: Callable) -> Callable:
    """The same with the name of the package that it is loaded without here."""
    core = inspect.unwrap(function)
    space = {"__name__": "k_diffusion.sampling"}
    return types.FunctionType(core.__code__, space, core.__name__, core.__defaults__, core.__closure__)


def test_k_diffusions_functions_are_all_known() -> None:
    sampling, _ = k_diffusion()
    names = [n for n in vars(sampling) if n.startswith("sample_") and isinstance(vars(sampling)[n], types.FunctionType)]
    assert len(names) > 10
    for name in names:
        assert name in FUNCTIONS
        function = vars(sampling)[name]
        moved = host_function_of(function)
        assert solver_for("?", moved) is FUNCTIONS[name]


FORGE = "def {name}(model, x, sigmas):\n    return isinstance(model.inner_model.predictor, PredictionFlux)"
COMFY_CONST = "def {name}(model, x, sigmas):\n    return isinstance(model.model_sampling, CONST)"


@pytest.mark.parametrize("name", ["sample_euler_ancestral", "sample_dpm_2_ancestral"])
def test_forge_hands_over_to_flow_forms_with_flux_only(name: str) -> None:
    class PredictionFlux: ...

    class PredictionDiscreteFlow: ...

    def denoiser(predictor: Any) -> Any:
        return types.SimpleNamespace(inner_model=types.SimpleNamespace(predictor=predictor))

    function = host(FORGE.format(name=name))
    assert solver_for("?", function, flow=True, denoiser=denoiser(PredictionFlux())) is FLOW[name]
    assert solver_for("?", function, flow=True, denoiser=denoiser(PredictionDiscreteFlow())) is FUNCTIONS[name]
    assert solver_for("?", function, flow=False, denoiser=denoiser(object())) is FUNCTIONS[name]


ERSATZ = "def {name}(model, x, sigmas):\n    return get_ancestral_step_flow(hasattr(model.inner_model.predictor, 'mu'))"


@pytest.mark.parametrize(
    "name", ["sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_sde"]
)
def test_ersatzforge_splits_a_flows_latent_where_its_predictor_has_a_shift(name: str) -> None:
    """The last two in a way that nobody else does: not ours."""

    def denoiser(**predictor: float) -> Any:
        return types.SimpleNamespace(inner_model=types.SimpleNamespace(predictor=types.SimpleNamespace(**predictor)))

    function = host(ERSATZ.format(name=name))
    known = FLOW[name] if name in ("sample_euler_ancestral", "sample_dpm_2_ancestral") else None
    for flow in ({"mu": 1.0}, {"shift": 3.0}):
        assert solver_for("?", function, flow=True, denoiser=denoiser(**flow)) is known
    assert solver_for("?", function, flow=True, denoiser=denoiser()) is FUNCTIONS[name]
    assert solver_for("?", function, flow=False, denoiser=denoiser(mu=1.0)) is FUNCTIONS[name]


def test_an_sa_solver_that_corrects_twice_whatever_it_is_told_is_not_ours() -> None:
    own = "def sample_sa_solver(model, x, sigmas):\n    use_pece = True\n    return use_pece"
    told = "def sample_sa_solver(model, x, sigmas, *, use_pece=False):\n    return use_pece"
    for flow in (True, False):
        assert solver_for("SA-Solver", host(own), flow=flow) is None
        assert solver_for("SA-Solver", host(told), flow=flow) is not None


def test_a_switch_that_is_never_reached_is_no_switch() -> None:
    function = host(COMFY_CONST.format(name="sample_euler_ancestral"), "ldm_patched.k_diffusion.sampling")
    with_sampling = types.SimpleNamespace(model_sampling=object())
    assert solver_for("Euler a", function, flow=True, denoiser=with_sampling) is FLOW["sample_euler_ancestral"]
    assert solver_for("Euler a", function, flow=True, denoiser=object()) is SOLVERS["Euler a"]
    assert solver_for("Euler a", function, flow=False, denoiser=with_sampling) is SOLVERS["Euler a"]


@pytest.mark.parametrize("flow", [True, False])
@pytest.mark.parametrize("name", SNR)
def test_functions_in_half_log_snr(name: str, flow: bool) -> None:
    source = f"def {name}(model, x, sigmas):\n    return partial(sigma_to_half_log_snr, model)"
    function = host(source, "ldm_patched.k_diffusion.sampling")
    assert solver_for("?", function, flow=flow) is SNR[name]
    assert solver_for("DPM++ 2M SDE Heun", function, flow=flow) is SNR[name]


@pytest.mark.parametrize("name", COMFY)
def test_comfys_last_step_of_ipndm(name: str) -> None:
    source = f"def {name}(model, x, sigmas): return x"
    assert solver_for("?", host(source, "ldm_patched.k_diffusion.sampling")) is COMFY[name]
    assert solver_for("?", host(source)) is FUNCTIONS[name]


def test_an_lms_that_looks_for_its_last_step() -> None:
    """Forge Neo's, under the label and in a module of the same name as everybody's."""
    source = "def sample_lms(model, x, sigmas, order=4):\n    return model if {} else x"
    assert solver_for("LMS", host(source.format("sigmas[1] == 0"))) is DENOISE_LAST["sample_lms"]
    assert solver_for("LMS", host(source.format("len(x) > order"))) is SOLVERS["LMS"]


@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_the_last_step_of_such_an_lms_is_the_model_s_answer(kind: str) -> None:
    sigmas = schedule_for(kind, "karras" if kind == "eps" else "simple", steps=6)
    x = start_of(kind, sigmas)
    steps: list[dict[str, Any]] = []
    region = FixedRegion(torch.rand(1, 1, *x.shape[-2:], generator=torch.Generator().manual_seed(1)))
    for solver, ends_there in ((DENOISE_LAST["sample_lms"], True), (SOLVERS["LMS"], False)):
        end = run_solver(solver, kind, sigmas, region, x, callback=steps.append)
        assert torch.equal(end, steps[-1]["denoised"]) is ends_there
        assert torch.isfinite(end).all()


def test_what_has_no_meaning_on_noise_levels() -> None:
    for label in ("Euler A2", "Euler A Comfy RF", "DPM++ 2S Ancestral Comfy RF"):
        assert solver_for(label, print) is None
        assert solver_for(label, print, flow=True) is SOLVERS[label]


def test_nothing_is_both_here_and_left_out() -> None:
    assert not set(SOLVERS) & set(LEFT_OUT)
    assert set(map(id, FUNCTIONS.values())) >= {id(s) for n, s in SOLVERS.items() if n != "DPM++ 2M SDE Heun"}


def test_settings_stand_in_where_the_function_has_no_argument() -> None:
    settings = {"euler_ancestral_og_eta": 0.25, "euler_ancestral_og_s_noise": 0.5, "uni_pc_order": 2}
    solver = SOLVERS["Euler a"]
    filled = solver.filled({"sigmas": None, "s_noise": None}, settings.get)
    assert solver.chosen(filled) == {"eta": 0.25, "s_noise": 0.5}
    assert solver.chosen(solver.filled({"eta": 1.0, "s_noise": 1.0}, settings.get)) == {"eta": 1.0, "s_noise": 1.0}
    assert solver.chosen(solver.filled({}, {}.get)) == {}
    unipc = SOLVERS["UniPC"]
    assert unipc.chosen(unipc.filled({}, settings.get)) == {"order": 2}


def test_a_flow_starts_just_below_one_where_half_log_snr_is_counted() -> None:
    sigmas = torch.tensor([1.0, 1.0, 0.9, 0.5, 0.0])
    base = snr_schedule({"sigmas": sigmas, "flow": True, "percent_to_sigma": percent_to_sigma("flow")})
    assert base.nominal(0) == base.nominal(1) == pytest.approx(percent_to_sigma("flow")(1e-4), rel=1e-6)
    assert [base.nominal(i) for i in (2, 3, 4)] == sigmas.double().tolist()[2:]
    assert snr_schedule({"sigmas": sigmas, "flow": True}).nominal(0) == pytest.approx(0.9999)
    assert snr_schedule({"sigmas": 14 * sigmas}).nominal(0) == 14.0
