"""``asyndm bench``: its rows, and that it compares what it says. How long anything takes is not looked at here."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

from support.small import SIDE, SMALL
from support.tiny import fresh_model

from asyndm_ext.bench import cli, measure, memory, tables
from asyndm_ext.bench.blobs import Blobs
from asyndm_ext.bench.cases import CASES, normal
from asyndm_ext.bench.measure import WALKED, Comparison, ratios, spread
from asyndm_ext.bench.naive import a_row_per_pixel
from asyndm_ext.bench.subjects import Subject, embedded_subject, random_subject
from asyndm_ext.commands.main import COMMANDS

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(SMALL) == set(CASES)
    for name, case in SMALL.items():
        monkeypatch.setitem(CASES, name, case)
    monkeypatch.setattr("asyndm_ext.world.model.load_world", lambda device: fresh_model().to(device))


def subject(name: str, batch: int = 2) -> Subject:
    if name == "embedded":
        return embedded_subject(batch, CPU)
    return random_subject(name, batch, False, SIDE, CPU, torch.float32)


NAMES = ["embedded", *SMALL]


def test_the_command_is_registered() -> None:
    assert COMMANDS["bench"].module == cli.__name__


NUMBERS = ["ratio", "ratio_min", "ratio_max", "cpu_ratio", "cpu_ratio_min", "cpu_ratio_max", "step_seconds"]
MEMORY = ["memory_ratio", "step_memory_ratio", "memory_mib", "weights_mib"]
WORDS = ["model", "variant", "device", "dtype", "latent", "whole_latent", "depth", "whole_depth"]


ASKED = ["sdxl", "sd3", "flux"]


def test_rows_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--json", "--pairs", "2", "--latent", str(SIDE), "--batches", "1", "2", "--devices", "cpu"]
    assert cli.main([*asked, "--models", *ASKED]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    seen = [(row["model"], row["batch"], row["variant"]) for row in rows]
    expected = [
        (name, batch, variant)
        for name in ASKED
        for batch in (1, 2)
        for variant in ("asyndm", "off", "naive")
        if variant != "naive" or batch == 1
    ]
    assert seen == expected
    for row in rows:
        assert all(type(row[key]) is float and row[key] > 0 for key in NUMBERS + MEMORY), row
        assert all(type(row[key]) is str and row[key] for key in WORDS), row
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["cpu_ratio_min"] <= row["cpu_ratio"] <= row["cpu_ratio_max"]
        assert row["pairs"] == {"asyndm": 2, "off": 2, "naive": 1}[row["variant"]]
        assert (row["latent"], row["whole_latent"]) == (f"{SIDE}x{SIDE}", f"{2 * SIDE}x{2 * SIDE}")
    for row in rows:
        if row["variant"] == "asyndm":
            assert 0 < row["slow_fraction"] < 1
            assert row["timesteps"] > 2, "a map that is uniform, or nearly so"
            assert row["step_memory_ratio"] < 1.5
        elif row["variant"] == "off":
            assert row["memory_ratio"] == row["step_memory_ratio"] == 1
        else:
            assert row["differs_by"]["answer"] < 1e-4 and row["differs_by"]["attention"] < 1e-4


def test_rows_of_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json", "--models", "embedded", "--pairs", "1", "--batches", "1"]) == 0
    asyndm, off, naive = json.loads(capsys.readouterr().out)["rows"]
    assert [row["variant"] for row in (asyndm, off, naive)] == ["asyndm", "off", "naive"]
    assert asyndm["timesteps"] > 2 and 0 < asyndm["slow_fraction"] < 1
    assert naive["differs_by"]["answer"] < 1e-4 and naive["differs_by"]["attention"] < 1e-4


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--quick", "--models", "flux", "--pairs", "1", "--latent", str(SIDE), "--no-naive"]) == 0
    header, *lines, words = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["network", "device", "images", "latent"]
    assert [line.split()[:5] for line in lines] == [["flux", "cpu", "1", "16x16", what] for what in ("asyndm", "off")]
    assert words.startswith("AsynDM costs ") and "on Flux (cpu, 1 image)" in words and words.endswith("memory.")


@pytest.mark.parametrize(
    ("ratio", "off", "memory_ratio", "said"),
    [
        (1.021, 1.004, 1.003, "AsynDM costs 2.1 % of a step on SDXL (cuda, 4 images), and 0.3 % more memory."),
        (1.021, 1.004, 1.0, "AsynDM costs 2.1 % of a step on SDXL (cuda, 4 images), and no more memory."),
        (
            *(1.004, 1.03, 1.0),
            "AsynDM costs less than can be seen here on SDXL (cuda, 4 images): plain steps differ by 3.0 % among "
            "themselves, and with AsynDM it was 0.4 %; no more memory.",
        ),
    ],
)
def test_what_the_figures_say(ratio: float, off: float, memory_ratio: float, said: str) -> None:
    common = {"model": "sdxl", "device": "cuda", "batch": 4}
    rows = [
        {**common, "variant": "asyndm", "ratio": ratio, "memory_ratio": memory_ratio},
        {**common, "variant": "off", "ratio": 1.0, "ratio_min": 0.999, "ratio_max": off},
        {**common, "batch": 1, "variant": "off", "ratio": 1.0, "ratio_min": 0.5, "ratio_max": 2.0},
        {**common, "variant": "naive", "ratio": 9.0},
    ]
    assert list(tables.in_words(rows)) == [said]


def test_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """What a GPU is told: :mod:`test_on_device` holds the numbers to their budgets."""
    asked = ["--count", "--models", "sd21", "--batches", "1", "--latent", str(SIDE)]
    assert cli.main(asked) == 0
    *_, line, words = capsys.readouterr().out.splitlines()
    assert cli.main([*asked, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert line.split() == [
        *("sd21", "1", "16x16", str(row["kernels"]), str(row["kernels_plain"]), f"{row['ratio']:.3f}"),
        *(str(row[key]) for key in ("copies_in_network", "copies_per_step", "waiting_copies", "read_backs")),
    ]
    assert row["kernels"] > row["kernels_plain"] > 100 and row["read_backs"] == 1
    assert words.endswith("more kernels on SD 2.1 (1 image), and the processor waits for it once a step.")


def test_counts_of_what_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--count", "--models", "embedded"])
    assert left.value.code == 2
    assert "--count knows the networks sd21, sdxl, sd3, flux" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "sd9"],
        ["--latent", "12"],
        ["--latent", "0"],
        ["--pairs", "0"],
        ["--pairs", "13"],
        ["--batches", "0"],
    ],
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_both_kinds_of_steps_take_turns_and_plain_ones_have_no_hooks(name: str) -> None:
    made, turns = subject(name), []
    real = made.host.network

    def network(x: Tensor, t: Tensor) -> Tensor:
        turns.append(hooks(made.network))
        return real(x, t)

    made.host.network = network
    if name == "embedded":  # the network is called by its own host there
        model = made.model
        monitored = type(model).__call__

        class Monitored(type(model)):  # type: ignore[misc]
            def __call__(self, *args: Any) -> Tensor:
                turns.append(hooks(made.network))
                return monitored(self, *args)

        model.__class__ = Monitored
    before = hooks(made.network)
    Comparison(made, 2, naive=False).run()
    plain = [count == before for count in turns]
    # One of each to warm up; then plain ones around those with AsynDM; the last is watched for its memory.
    assert plain == [False, True, True, False, True, False, True, False]
    assert hooks(made.network) == before


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_the_variants_differ(name: str) -> None:
    made = subject(name)
    done = Comparison(made, 1, naive=False).run()
    assert done._model.last is not None
    x, nominal, level, answer = done._model.last
    for image in level:
        assert image.unique().numel() > 2
    assert not torch.equal(level[0], level[1]) or name == "embedded"
    with torch.no_grad():
        plain = made.host.plain(x, nominal)
        with made.model.attached():
            uniform = made.model(x, nominal, torch.full_like(level, nominal))
    assert float((answer - plain).abs().max() / plain.abs().max()) > 1e-3
    assert float((uniform - plain).abs().max() / plain.abs().max()) < 1e-5, "not the same model"


@pytest.mark.parametrize("name", NAMES)
def test_at_strength_0_both_runs_end_alike(name: str) -> None:
    made = subject(name, 1)
    object.__setattr__(made, "region", Still)
    done = Comparison(made, 3, naive=False)
    done.run()
    with torch.no_grad():
        x, level, _, answer = done._model.last  # type: ignore[misc]
        assert float((answer - made.host.plain(x, level)).abs().max() / answer.abs().max()) < 1e-5
    assert done.distinct == [1, 1, 1]


class Still(Blobs):
    def strength(self, progress: float) -> Tensor:
        return 0 * super().strength(progress)


def test_pairs_have_to_fit_into_the_run() -> None:
    for pairs in (0, 20 - WALKED - 1):
        with pytest.raises(ValueError, match="pairs must be between 1 and 12"):
            Comparison(subject("flux"), pairs, naive=False).run()


def test_ratios_are_to_the_plain_steps_around() -> None:
    assert ratios([3.0, 6.0], [2.0, 4.0, 2.0]) == [1.0, 2.0]
    assert spread([1.0, 4.0, 2.0]) == {"ratio": 2.0, "ratio_min": 1.0, "ratio_max": 4.0}
    assert spread([1.5], "cpu_ratio") == {"cpu_ratio": 1.5, "cpu_ratio_min": 1.5, "cpu_ratio_max": 1.5}


def test_blobs_move_every_third_call_and_differ_between_images() -> None:
    shape = (2, 1, 32, 24)
    blobs, seen = Blobs(shape), []
    for call in range(7):
        seen.append(blobs.strength(0.0))
        blobs.observe(torch.rand(2, 2, 8, 6, generator=torch.Generator().manual_seed(call)), 0.0)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[3], seen[5])
    assert not torch.equal(seen[2], seen[3]) and not torch.equal(seen[5], seen[6])
    assert not torch.equal(seen[0][0], seen[0][1])
    assert set(seen[0].unique().tolist()) == {0.0, 0.4, 0.7}
    with pytest.raises(RuntimeError, match="attention to the objects cannot be read"):
        blobs.observe(None, 0.0)


@pytest.mark.parametrize("by_patch", [False, True])
def test_the_naive_table_has_a_row_for_every_pixel(by_patch: bool) -> None:
    t = 100 * torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table = a_row_per_pixel(t, by_patch)
    side = 2 if by_patch else 1
    rows = 96 // side**2
    assert table.counts == (rows, rows) and len(table.values) == 2 * rows
    for image in range(2):
        own = table.values[image * rows :][table.index[image]]
        first = t[image, 0, ::side, ::side].repeat_interleave(side, 0).repeat_interleave(side, 1)
        assert float((own - first).abs().max()) <= 0.125


def test_the_highest_point_of_memory() -> None:
    assert memory.highest([]) == 0
    assert memory.highest([4, 8, -4, 2, -10]) == 12
    assert memory.highest([-5, 3]) == 0


def test_memory_is_that_of_the_tensors_made_inside() -> None:
    outside = torch.zeros(1000)
    with memory.watched(CPU) as peak:
        doubled = outside * 2
        del doubled
        kept = torch.cat([outside, outside])
    assert 8000 <= peak().step < 12000, kept.shape


def test_seeded() -> None:
    assert torch.equal(normal(3, seed=1), normal(3, seed=1))
    assert not torch.equal(normal(3, seed=1), normal(3, seed=2))
    assert measure.WALKED > 3, "the pixels have to drift apart before anything is measured"
