"""Every solver at strength 0 is the host's function: for eps, v and rectified flow, on several schedules."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from support.host_formulas import (
    BY_SNR,
    FLOWS,
    IN_SNR,
    NOISE_LEVELS,
    ON_FLOW,
    Solve,
    by_half_log_snr,
    dpmpp_2m_sde,
    dpmpp_3m_sde,
    dpmpp_sde,
    sa_for,
    seeds,
)
from support.kdiffusion import k_diffusion
from support.solvers import (
    FLOW_SCHEDULES,
    KINDS_AND_SCHEDULES,
    SHAPE,
    Network,
    Noise,
    Tree,
    close,
    percent_to_sigma,
    randn,
    run_solver,
    schedule_for,
    start_of,
)
from torch import Tensor

from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.solvers import FLOW, SNR, SOLVERS, Solver

EVEN = FixedRegion.everything((2, 1, 4, 5), 0.0)
K_DIFFUSION = {
    "Euler": "sample_euler",
    "Euler a": "sample_euler_ancestral",
    "Heun": "sample_heun",
    "DPM2": "sample_dpm_2",
    "DPM2 a": "sample_dpm_2_ancestral",
    "DPM++ 2M": "sample_dpmpp_2m",
    "DPM++ 2S a": "sample_dpmpp_2s_ancestral",
    "DPM++ SDE": "sample_dpmpp_sde",
    "DPM++ 2M SDE": "sample_dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "sample_dpmpp_2m_sde",
    "DPM++ 3M SDE": "sample_dpmpp_3m_sde",
    "LMS": "sample_lms",
}


@pytest.mark.parametrize(("kind", "schedule"), KINDS_AND_SCHEDULES)
@pytest.mark.parametrize("name", K_DIFFUSION)
def test_strength_zero_is_k_diffusion(name: str, kind: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a rectified flow, where hosts run the same functions."""
    sampling, _ = k_diffusion()
    solver, sigmas = SOLVERS[name], schedule_for(kind, schedule)
    x = start_of(kind, sigmas)
    their_noise, our_noise = Noise(), Noise()
    arguments: dict[str, Any] = {"noise_sampler": Tree(their_noise)} if solver.brownian else {}
    if name.endswith("Heun") and solver.brownian:
        arguments["solver_type"] = "heun"
    network, asked = Network(kind), []

    def theirs(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return network.answers(x, sigma.view(-1, 1, 1, 1))[0]

    monkeypatch.setattr(sampling.torch, "randn_like", their_noise)
    expected = getattr(sampling, K_DIFFUSION[name])(theirs, x, sigmas, disable=True, **arguments)
    monkeypatch.undo()
    ours, tree = Network(kind), Tree(our_noise)
    found = run_solver(solver, kind, sigmas, EVEN, x, model=ours, randn_like=our_noise, noise_sampler=tree)
    close(found, expected, 1e-8)
    assert our_noise.drawn == their_noise.drawn
    assert ours.nominals == pytest.approx(asked, rel=1e-12)
    if solver.brownian:
        assert tree.asked == arguments["noise_sampler"].asked


def compare(solver: Solver, solve: Solve, kind: str, schedule: str, steps: int = 11, **options: Any) -> None:
    sigmas = schedule_for(kind, schedule, steps)
    x = start_of(kind, sigmas)
    network, their_noise, our_noise, asked = Network(kind), Noise(), Noise(), []

    def theirs(y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        asked.append(sigma)
        return network.answers(y, torch.tensor(sigma, dtype=torch.float64))

    expected = solve(theirs, x, sigmas.tolist(), their_noise)
    ours = Network(kind)
    noises = {"randn_like": our_noise, "noise_sampler": Tree(our_noise)}
    found = run_solver(solver, kind, sigmas, EVEN, x, options=options, model=ours, **noises)
    close(found, expected, 1e-8)
    assert our_noise.drawn == their_noise.drawn
    assert ours.nominals == pytest.approx(asked, rel=1e-9)
    assert all(bool((level == level.flatten()[0]).all()) for level in ours.levels)


def flow_of(name: str, solve: Solve) -> Solve:
    if name in BY_SNR:
        return by_half_log_snr(solve, percent_to_sigma("flow")(1e-4))
    return FLOWS.get(name, solve)


@pytest.mark.parametrize(("kind", "schedule"), KINDS_AND_SCHEDULES)
@pytest.mark.parametrize("steps", [2, 11])
@pytest.mark.parametrize("name", NOISE_LEVELS)
def test_strength_zero_is_the_formula(name: str, steps: int, kind: str, schedule: str) -> None:
    solve = NOISE_LEVELS[name]
    compare(SOLVERS[name], flow_of(name, solve) if kind == "flow" else solve, kind, schedule, steps)


@pytest.mark.parametrize("schedule", FLOW_SCHEDULES)
@pytest.mark.parametrize("steps", [1, 4, 11])
@pytest.mark.parametrize("name", [name for name in FLOWS if name not in NOISE_LEVELS])
def test_what_is_for_flows_only(name: str, steps: int, schedule: str) -> None:
    assert SOLVERS[name].flow_only
    compare(SOLVERS[name], FLOWS[name], "flow", schedule, steps)


@pytest.mark.parametrize("schedule", FLOW_SCHEDULES)
@pytest.mark.parametrize("steps", [1, 4, 11])
@pytest.mark.parametrize("name", ON_FLOW)
def test_what_a_hosts_function_becomes_on_a_flow(name: str, steps: int, schedule: str) -> None:
    compare(FLOW[name], ON_FLOW[name], "flow", schedule, steps)


@pytest.mark.parametrize(("kind", "schedule"), KINDS_AND_SCHEDULES)
@pytest.mark.parametrize("name", IN_SNR)
def test_functions_in_half_log_snr(name: str, kind: str, schedule: str) -> None:
    solve = IN_SNR[name]
    if kind == "flow":
        solve = by_half_log_snr(solve, percent_to_sigma(kind)(1e-4))
    compare(SNR[name], solve, kind, schedule)


@pytest.mark.parametrize(("kind", "schedule"), KINDS_AND_SCHEDULES)
@pytest.mark.parametrize("steps", [2, 3, 11])
@pytest.mark.parametrize("name", ["SA-Solver", "SA-Solver-Pece"])
def test_sa_solver(name: str, steps: int, kind: str, schedule: str) -> None:
    compare(SOLVERS[name], sa_for(kind == "flow", percent_to_sigma(kind), name.endswith("Pece")), kind, schedule, steps)


ETA = [
    (SOLVERS["Euler Ancestral CFG++"], NOISE_LEVELS["Euler Ancestral CFG++"]),
    (SOLVERS["DPM++ 2S Ancestral CFG++"], NOISE_LEVELS["DPM++ 2S Ancestral CFG++"]),
    (SOLVERS["DPM++ SDE CFG++"], partial(dpmpp_sde, cfgpp=True)),
    (SOLVERS["DPM++ 3M SDE CFG++"], partial(dpmpp_3m_sde, cfgpp=True)),
    (SOLVERS["RES Multistep Ancestral"], NOISE_LEVELS["RES Multistep Ancestral"]),
    (SOLVERS["RES Multistep Ancestral CFG++"], NOISE_LEVELS["RES Multistep Ancestral CFG++"]),
    (SOLVERS["SEEDS 2 DP"], seeds),
    (SOLVERS["SEEDS 3 DP"], partial(seeds, parts=3)),
    (SOLVERS["Kohaku_LoNyu_Yog"], NOISE_LEVELS["Kohaku_LoNyu_Yog"]),
    (SNR["sample_dpmpp_sde"], dpmpp_sde),
    (SNR["sample_dpmpp_2m_sde"], dpmpp_2m_sde),
    (SNR["sample_dpmpp_3m_sde"], dpmpp_3m_sde),
]


@pytest.mark.parametrize("eta", [0.4, 1.3])
@pytest.mark.parametrize(("solver", "solve"), ETA)
def test_other_amounts_of_noise(solver: Solver, solve: Any, eta: float) -> None:
    compare(solver, partial(solve, eta=eta), "eps", "karras", eta=eta)


@pytest.mark.parametrize("eta", [0.4, 0.8])
@pytest.mark.parametrize(
    "name", ["Euler Ancestral CFG++", "Euler A Comfy RF", "DPM++ 2S Ancestral Comfy RF", "Euler A2"]
)
def test_other_amounts_of_noise_on_a_flow(name: str, eta: float) -> None:
    compare(SOLVERS[name], partial(FLOWS[name], eta=eta), "flow", "shifted", eta=eta)


def test_no_noise_in_sa_solvers_draws_nothing() -> None:
    noise = Noise()
    sigmas = schedule_for("eps", "karras")
    options = {"s_noise": 0.0}
    run_solver(SOLVERS["SA-Solver"], "eps", sigmas, EVEN, randn(*SHAPE, seed=3), options=options, randn_like=noise)
    assert noise.drawn == 0


def test_a_solver_with_guidance_of_its_own_needs_the_unguided_answer() -> None:
    class Silent(Network):
        @property
        def last_uncond(self) -> None:
            return None

        @last_uncond.setter
        def last_uncond(self, value: Tensor | None) -> None:
            pass

    sigmas = schedule_for("eps", "karras")
    for name, solver in SOLVERS.items():
        if solver.uncond and solver.space == "sigma":
            assert name.rsplit(" ", 1)[0].endswith("CFG++") or name.endswith("CFG++")
            with pytest.raises(RuntimeError, match="without the prompt"):
                run_solver(solver, "eps", sigmas, EVEN, randn(*SHAPE, seed=3), model=Silent("eps"))


@pytest.mark.parametrize("solver", [*SNR.values(), *(SOLVERS[n] for n in (*BY_SNR, "SA-Solver", "SA-Solver-Pece"))])
def test_a_change_of_variables_does_not_show(solver: Solver) -> None:
    """The host's callback, its noise sampler and the model see the host's own latents and sigmas."""
    sigmas = schedule_for("flow", "shifted")
    seen: list[tuple[Tensor, float]] = []
    reports: list[dict[str, Any]] = []

    class Watched(Network):
        def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
            seen.append((x, nominal))
            return super().__call__(x, nominal, level)

    def report(step: dict[str, Any]) -> None:
        reports.append(step)
        x, nominal = seen[-1]
        close(step["x"], x, 1e-12)
        assert float(step["sigma"]) == pytest.approx(nominal, rel=1e-6)

    tree = Tree(Noise())
    region = FixedRegion.everything((2, 1, 4, 5), 0.6)
    x = start_of("flow", sigmas)
    watched = {"model": Watched("flow"), "callback": report, "noise_sampler": tree}
    found = run_solver(solver, "flow", sigmas, region, x, **watched)
    assert [step["i"] for step in reports] == list(range(len(sigmas) - 1))
    assert found.abs().max() < 10
    levels = [percent_to_sigma("flow")(1e-4), *sigmas.tolist()[1:]]
    for start, _ in tree.asked:
        assert min(abs(start - level) for level in levels) < 1e-12
    assert all(sigma_next < sigma for sigma, sigma_next in tree.asked)


@pytest.mark.parametrize("steps", [2, 11])
@pytest.mark.parametrize("name", ["sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"])
def test_the_tree_is_asked_about_the_hosts_own_levels_to_the_last_bit(name: str, steps: int) -> None:
    """A Brownian tree answers otherwise where only the last bit is another, as a change of variables makes it."""
    sigmas = schedule_for("flow", "shifted", steps).float()
    first = torch.tensor(percent_to_sigma("flow")(1e-4), dtype=torch.float32)
    tree = Tree(Noise())
    run_solver(SNR[name], "flow", sigmas, EVEN, start_of("flow", sigmas).float(), noise_sampler=tree)
    wanted: list[tuple[float, float]] = []
    for sigma, sigma_next in zip([first, *sigmas[1:-2]], sigmas[1:-1], strict=True):
        if name == "sample_dpmpp_sde":  # and about the step's middle, as Forge Neo works it out
            here, there = sigma.logit().neg(), sigma_next.logit().neg()
            wanted.append((float(sigma), float((here + 0.5 * (there - here)).neg().sigmoid())))
        wanted.append((float(sigma), float(sigma_next)))
    assert tree.asked == wanted
