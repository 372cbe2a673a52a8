"""What a run hands on from its host, and what it keeps."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch
from support.solvers import SHAPE, TABLE, Network, percent_to_sigma, randn, schedule_for
from torch import Tensor

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.run import FromHost, Run, SentMaps, StepRecord
from asyndm_ext.solvers.half_log_snr import AsNoiseLevels, noise_per_signal

MAP = (SHAPE[0], 1, *SHAPE[2:])


def run_with(host: FromHost | None = None, kind: str = "eps", dtype: torch.dtype = torch.float32) -> Run:
    sigmas = schedule_for(kind, "shifted" if kind == "flow" else "karras", 4)
    base = BaseSchedule.from_sigmas(sigmas.clamp(max=0.999) if kind == "flow" else sigmas)
    region = FixedRegion(torch.linspace(0, 1, SHAPE[2] * SHAPE[3]).view(1, 1, *SHAPE[2:]).expand(MAP).double())
    x = (base.nominal(0) * randn(*SHAPE, seed=1)).to(dtype)
    return Run(Network(kind), PixelSchedule(base, MAP, "quadratic"), region, x, host)


def test_a_host_may_give_nothing() -> None:
    run = run_with()
    assert list(run.steps()) == [0, 1, 2, 3] and list(run.steps(2)) == [0, 1]
    assert not run.host.flow and run.host == FromHost()
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        found = run.noise_sampler(run.scalar(0), run.scalar(1))
        torch.manual_seed(5)
        assert torch.equal(found, torch.randn(SHAPE)), "normals like the latent"
    run.report(0, found, found)
    with pytest.raises(RuntimeError, match="alphas_cumprod"):
        run.alpha  # noqa: B018


def test_a_run_asks_its_host() -> None:
    told: list[Any] = []

    def watch(record: StepRecord) -> None:
        told.append(record.step)

    def noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return sigma - sigma_next

    host = FromHost(
        randn_like=torch.zeros_like,
        noise_sampler=noise,
        table=TABLE,
        callback=lambda step: told.append(step["i"]),
        watch=watch,
        progress=reversed,
    )
    run = run_with(host)
    assert list(run.steps()) == [3, 2, 1, 0]
    assert run.noise_sampler(run.scalar(0), run.scalar(1)) == run.scalar(0) - run.scalar(1)
    assert not run.randn_like(torch.ones(2)).any()
    run.report(7, torch.ones(1), torch.ones(1))
    run.move()
    assert told == [7, 0]


def test_a_host_is_not_changed_by_its_run() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FromHost().flow = True  # type: ignore[misc]


@pytest.mark.parametrize("percent", [0.2, 0.8])
def test_the_sigma_at_a_share_of_the_way(percent: float) -> None:
    assert FromHost(table=TABLE, percent_to_sigma=lambda share: 7 * share).sigma_at(percent) == 7 * percent
    assert FromHost(table=TABLE, flow=True).sigma_at(percent) == 1 - percent
    assert FromHost(table=TABLE).sigma_at(percent) == TABLE.sigma_at(percent)


def test_a_flow_in_the_variables_of_noise_levels_has_a_host_in_them() -> None:
    run = run_with(
        FromHost(flow=True, percent_to_sigma=percent_to_sigma("flow"), noise_sampler=lambda a, b: a - b), "flow"
    )
    view = AsNoiseLevels(run)
    expected = noise_per_signal(torch.tensor(percent_to_sigma("flow")(0.3), dtype=torch.float64))
    assert view.host.sigma_at(0.3) == float(expected)
    assert run.host.flow and not view.host.flow
    # The host's own levels, to the last bit.
    assert view.noise_sampler(view.scalar(1), view.scalar(2)) == run.scalar(1) - run.scalar(2)


@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_a_run_is_gone_with_its_last_user(kind: str) -> None:
    """Its tensors would stay until the garbage collector comes by, a picture later."""
    gc.disable()
    try:
        run = run_with(FromHost(flow=kind == "flow"), kind)
        view = AsNoiseLevels(run) if kind == "flow" else run
        gone = weakref.ref(run), weakref.ref(view)
        del run, view
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


class TestSentMaps:
    def test_a_map_is_sent_once(self) -> None:
        maps = SentMaps(torch.zeros(SHAPE, dtype=torch.float16))
        level = randn(*MAP, seed=1)
        there = maps.on_device(level)
        assert there.dtype == torch.float32, "never less"
        assert maps.on_device(level) is there
        again, other = maps.all_on_device(level, level + 1)
        assert again is there and torch.equal(other, (level + 1).float())

    def test_what_is_made_between_is_made_of_what_was_sent(self) -> None:
        maps = SentMaps(torch.zeros(SHAPE))
        first, second = (maps.on_device(randn(*MAP, seed=seed)) for seed in (1, 2))
        seen: list[Tensor] = []

        def work(*given: Tensor) -> Tensor:
            seen.extend(given)
            return given[0] + given[1]

        made = maps.between(work, first, second)
        assert seen[0] is maps.on_cpu(first) and seen[1] is maps.on_cpu(second)
        assert torch.equal(made, first + second)
        pair = maps.between(lambda a: (a, 2 * a), first)
        assert torch.equal(pair[1], 2 * first)


def test_a_solver_reads_a_short_list() -> None:
    """Who adds to it makes every solver longer to read."""
    run = run_with()
    public = {name for name in dir(run) if not name.startswith("_")}
    assert public == {
        *("schedule", "host", "maps"),
        *("count", "steps", "nominal", "scalar", "middle"),
        *("level", "exact", "alpha"),
        *("model", "model_at", "uncond", "changed"),
        *("randn_like", "noise_sampler"),
        *("advance", "move", "restart", "ahead", "peek"),
        "report",
    }
    text = str(Run.__doc__)
    assert all(f"``{name}``" in text for name in public)
