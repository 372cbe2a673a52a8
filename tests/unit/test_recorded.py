"""Recorded steps of the training (``asyndm_ext/world/recorded.py``), without a GPU: its graphs are stood in for."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from support import pretend
from support.tiny import fresh_model

from asyndm_ext.world.lagging import LaggingTrainer
from asyndm_ext.world.pool import ScenePool
from asyndm_ext.world.recorded import Recorded
from asyndm_ext.world.train import build_parser, chosen
from asyndm_ext.world.trainers import DiffusionTrainer, TrainSettings, rate_at

KINDS = [DiffusionTrainer, LaggingTrainer]


class Tape:
    """What stands in for a GPU: a graph plays the work again, into the memory that it was recorded with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recording, self.work_calls = False, 0
        stream = type("Stream", (), {"wait_stream": lambda *_: None})
        monkeypatch.setattr(torch.cuda, "current_stream", stream)
        monkeypatch.setattr(torch.cuda, "Stream", stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextlib.contextmanager
    def graph(self, one: Tape) -> Iterator[None]:
        assert one is self
        self.recording = True
        yield
        self.recording = False

    def replay(self) -> None:
        self.out.copy_(2 * self.x + self.y)

    def work(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        self.work_calls += 1
        if self.recording:  # nothing is computed while a GPU records
            self.x, self.y, self.out = inputs["x"], inputs["y"], torch.full((2,), torch.nan)
            return (self.out,)
        return (2 * inputs["x"] + inputs["y"],)


def test_a_recorded_work_runs_a_few_times_and_is_played_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape(monkeypatch)
    recorded = Recorded(tape.work)
    made = []
    for i in range(8):
        x, y = torch.tensor([1.0, i]), torch.tensor([10.0 * i, 0.0])
        made.append((recorded({"x": x, "y": y})[0], 2 * x + y))
        x.fill_(-1)  # the caller's own
    assert tape.work_calls == Recorded.BEFORE + 1
    for got, expected in made:  # all of them at the end: what was played later has not changed them
        assert torch.equal(got, expected)


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "asyndm_ext.world.trainers.ScenePool",
        lambda m, s, b, refresh, drawer=None: ScenePool(m, s, b, 8, refresh, drawer),
    )


@pytest.mark.usefixtures("few_scenes")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_recorded_waits_for_a_gpu_or_copies_to_it(kind: type[DiffusionTrainer]) -> None:
    pretend.needed()
    trainer = kind(fresh_model().requires_grad_(True), TrainSettings(batch=6, pool_blocks=1))
    trainer.pool.advance(0)
    inputs = trainer.drawn(torch.Generator().manual_seed(3))
    expected = trainer.losses(inputs)[0]
    with pretend.accelerator() as log:
        device = torch.device(pretend.DEVICE)
        trainer.model.to(device)
        there = {name: value.to(device) for name, value in inputs.items()}
        log.clear()
        loss = trainer.losses(there)[0]
        assert log.of("kernel") and not log.of("copy"), log.told("copy")
        assert not log.of("read-back"), log.told("read-back")
    assert torch.allclose(pretend._inner(loss), expected, rtol=1e-5)


@pytest.mark.usefixtures("few_scenes")
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_end_as_others_do(kind: type[DiffusionTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a stop: the rate stays where a recorded step reads it. (The work itself runs at every step here.)"""
    monkeypatch.setattr("asyndm_ext.world.trainers.Recorded", lambda work: work)
    plain = TrainSettings(steps=6, batch=2, pool_blocks=1, pool_refresh=2, warmup=2)
    one, two = (
        kind(fresh_model().requires_grad_(True), TrainSettings(**{**vars(plain), "recorded": recorded}))
        for recorded in (False, True)
    )
    read = two.optimizer.param_groups[0]["lr"]
    for _ in range(3):
        assert one.train_step() == pytest.approx(two.train_step().item(), rel=1e-5)
        assert two.optimizer.param_groups[0]["lr"] is read and read.item() == pytest.approx(
            rate_at(one.step - 1, plain)
        )
    again = kind(fresh_model().requires_grad_(True), TrainSettings(**{**vars(plain), "recorded": True}))
    again.load_state_dict(copy.deepcopy(two.state_dict()))
    losses = [trainer.train_step().item() for trainer in (one, two, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[1] == losses[2]
    assert again.optimizer.param_groups[0]["lr"] is again._rate
    assert all(torch.equal(a, b) for a, b in zip(two.trained, again.trained, strict=True))


def test_recording_needs_a_gpu() -> None:
    options = build_parser().parse_args(["--recorded", "--device", "cuda"])
    assert chosen(options, TrainSettings()).recorded
    with pytest.raises(SystemExit, match="add --device cuda"):
        chosen(build_parser().parse_args(["--recorded", "--device", "cpu"]), TrainSettings())
