"""The exact world: its posterior against brute force; the method helps in it where it must, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.exact.config import Asked, ExactConfig, combinations, is_usual
from asyndm_ext.exact.model import ExactModel
from asyndm_ext.exact.sampling import Conditions, sample
from asyndm_ext.exact.world import JITTER, ExactWorld
from asyndm_ext.settings import Settings
from asyndm_ext.solvers import SOLVERS

DDIM = Conditions("DDIM", steps=20, guidance=6.0, eta=1.0)


def settings(**values: object) -> Settings:
    return Settings.from_dict({"objects": ["animal"], "strength": 1.0, **values})


def right(config: ExactConfig, conditions: Conditions, own: Settings | None, usual: bool = False, rounds: int = 15):
    """Which pictures show what was asked for ``(n,)``, and how many there are."""
    world = ExactWorld(config)
    asked = combinations(config.parts, usual) * rounds
    found = world.found(sample(world, asked, range(len(asked)), conditions, own))
    return (found == torch.tensor([one.kinds for one in asked])).all(dim=1).double()


def gain(config: ExactConfig, conditions: Conditions, own: Settings, **more: object) -> float:
    """Of AsynDM over plain, points."""
    plain, ours = (right(config, conditions, which, **more) for which in (None, own))
    return 100 * float((ours - plain).mean())


# --- the denoiser ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3])
def test_the_posterior_mean_is_that_of_the_sum_over_all_combinations(parts):
    world = ExactWorld(ExactConfig(parts=parts, tie=0.7, heed=3.0, dimension=5))
    asked = [combinations(parts, False)[3]]
    model = ExactModel(world, asked, 1.0, NoiseTable.from_alphas_cumprod(world.alphas_cumprod), "sigma")
    x = torch.randn(1, 5, 1, parts, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    sigma = torch.tensor([0.4, 1.3, 2.5][:parts], dtype=torch.float64).view(1, 1, 1, parts)
    weights, means = [], []
    for kinds in torch.cartesian_prod(*[torch.arange(n) for n in world.sizes]).tolist():
        log = float(world.log_prior[tuple(kinds)])
        log += sum(world.config.heed for a, b in zip(kinds, asked[0].kinds, strict=True) if a == b)
        own = []
        for part, kind in enumerate(kinds):
            variance = JITTER**2 + float(sigma[..., part]) ** 2
            away = x[0, :, 0, part] - world.kinds[part][kind]
            log -= float((away**2).sum()) / (2 * variance)
            own.append(world.kinds[part][kind] + JITTER**2 / variance * away)
        weights.append(log)
        means.append(torch.stack(own, dim=-1))
    share = torch.tensor(weights, dtype=torch.float64).softmax(0)
    expected = (torch.stack(means) * share[:, None, None]).sum(0)
    assert torch.allclose(model.denoised(x, sigma)[1][0, :, 0], expected, atol=1e-12)
    assert not torch.allclose(model.denoised(x, sigma)[0][0, :, 0], expected, atol=1e-3)


def test_both_spaces_say_the_same():
    world = ExactWorld(ExactConfig(dimension=4))
    table = NoiseTable.from_alphas_cumprod(world.alphas_cumprod)
    asked = combinations(2, False)[:3]
    level = torch.tensor([300.0, 700.0]).double().expand(3, 1, 1, 2)
    alpha = table.alpha_at(level)
    x = torch.randn(3, 4, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    eps = ExactModel(world, asked, 4.0, table, "timestep")(x, 500.0, level)
    sigma = ((1 - alpha) / alpha).sqrt()
    denoised = ExactModel(world, asked, 4.0, table, "sigma")(x / alpha.sqrt(), 1.0, sigma)
    assert torch.allclose((x - (1 - alpha).sqrt() * eps) / alpha.sqrt(), denoised, atol=1e-9)


def test_the_prior_ties_the_parts():
    prior = ExactWorld(ExactConfig(tie=0.85)).log_prior.exp()
    assert math.isclose(float(prior.sum()), 1.0, rel_tol=1e-12)
    usual = sum(float(prior[kinds]) for kinds in [one.kinds for one in combinations(2, True)])
    assert math.isclose(usual, 0.85, rel_tol=1e-9)


def test_what_can_be_asked():
    unusual, usual = combinations(3, False), combinations(3, True)
    assert all(is_usual(one.kinds) for one in usual)
    assert not any(is_usual(one.kinds) for one in unusual)
    # Of the two animals that share a ground, and a third part, none is a partner of another.
    assert all(one.kinds[0] != one.kinds[2] and one.kinds[1] % 6 not in (one.kinds[0], one.kinds[2]) for one in unusual)
    assert str(Asked((2, 0, 4))) == "a shark with a bike in the desert"
    assert len({str(one) for one in unusual + usual}) == len(unusual + usual)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size=3", "'size' is nothing"),
        ("parts=4", "parts must be 2 or 3"),
        ("tie=x", "not a float"),
        ("tie=1", "tie must"),
    ],
)
def test_what_the_world_cannot_be(text, said):
    with pytest.raises(ValueError, match=said):
        ExactConfig.read(text)
    assert ExactConfig.read("parts=3,tie=0.7").parts == 3


# --- the wind tunnel: seeded, so the numbers are the same everywhere up to rounding -----------------------------------


def test_the_order_of_two_objects_matters():
    """Measured over 8000 pairs, from all objects together: +1.3 with the animal last, -1.1 with the thing last."""
    three = ExactConfig(parts=3, tie=0.7, heed=3.0)
    turns = {"objects": ["animal", "thing"], "curve": "piecewise linear"}
    first, last, own = (
        right(three, DDIM, settings(**turns | more), rounds=8)
        for more in ({"order": "in turn"}, {"order": "in turn, last first"}, {"objects": ["thing > animal"]})
    )
    assert 100 * float((last - first).mean()) > 1
    assert torch.equal(own, last)


def test_with_guidance_unusual_prompts_gain():
    """Measured over 3000 pairs: +7.8 and +10.4 (quadratic and piecewise linear, guidance 5)."""
    assert gain(ExactConfig(), DDIM, settings()) > 4
    assert gain(ExactConfig(), DDIM, settings(curve="piecewise linear")) > 6


def test_without_guidance_nothing_is_gained():
    """An exact model samples its own conditional whatever the order."""
    plain = right(ExactConfig(), Conditions("DDIM", steps=20, guidance=1.0, eta=1.0), None)
    assert 0.03 < float(plain.mean()) < 0.15
    assert -6 < gain(ExactConfig(), Conditions("DDIM", steps=20, guidance=1.0, eta=1.0), settings()) < 2


def test_parts_that_tell_each_other_nothing_gain_nothing():
    assert abs(gain(ExactConfig(tie=1 / 6), DDIM, settings(), rounds=6)) < 1.5


def test_usual_prompts_are_right_anyway():
    assert float(right(ExactConfig(), DDIM, None, usual=True).mean()) > 0.99
    assert abs(gain(ExactConfig(), DDIM, settings(), usual=True)) < 1


def test_it_is_the_difference_between_the_parts_that_helps():
    assert gain(ExactConfig(), DDIM, settings()) > gain(ExactConfig(), DDIM, settings(region="everything")) + 3


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if not solver.flow_only])
def test_every_solver_draws_the_exact_world(name):
    """Usual prompts are nearly always right, with lag and without: a solver that loses a part's noise shows at once."""
    solver = SOLVERS[name]
    # Karras' levels: DPM++ 3M SDE needs them in few steps, in the WebUIs too.
    scheduler = "karras" if solver.space == "sigma" else "uniform"
    conditions = Conditions(name, scheduler, 24, guidance=1 / solver.guidance if solver.uncond else 4.0)
    config = ExactConfig(tie=0.95, heed=4.0)
    for own in (None, settings()):
        assert float(right(config, conditions, own, usual=True, rounds=3).mean()) > 0.9


# --- as a command ---------------------------------------------------------------------------------------------------


def test_the_wind_tunnel_as_a_command(tmp_path, capsys):
    from asyndm_ext.evaluate.main import main

    out = tmp_path / "run"
    asked = ["--exact", "heed=3", "--solver", "DDIM", "--eta", "1", "--seeds", "2", "--methods", "asyndm,rest"]
    assert main([*asked, "--strength", "1", "--resamples", "50", "--out", str(out)]) == 0
    lines = (out / "differences.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:4] for line in lines[1:] if ",exact," in line] == [
        ["all", "asyndm", "exact", "80"],
        ["all", "rest", "exact", "80"],
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Pictures</h2>" not in page and "judge" not in page.split("<h2>")[-1]
    rows = (out / "pictures.csv").read_text(encoding="utf-8")
    assert "a shark in the desert" in rows


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["--url", "http://127.0.0.1:1", "--prompt-file", __file__, "--methods", "rest"],
            "the method 'rest' is a control of the little world and the exact one; leave out --url, or it",
        ),
        (["--exact", "--solver", "Euler A2"], "Euler A2 is for rectified flows"),
        (["--exact", "--kind", "two"], "the exact world has unusual and usual prompts"),
        (["--exact", "--url", "http://127.0.0.1:1"], "are two runs; take one of them"),
    ],
)
def test_what_the_command_refuses(asked, said, tmp_path, capsys):
    from asyndm_ext.evaluate.main import main

    with pytest.raises(SystemExit, match="2"):
        main([*asked, "--prompts", "1", "--out", str(tmp_path / "run")])
    assert said in capsys.readouterr().err
