"""A recorded run of the authors' code, and the same run here, compared step by step."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.region.grid import enlarge
from asyndm_ext.region.masks import MaskOptions
from asyndm_ext.region.regions import FixedObjects, FixedRegion, ObjectRegion
from asyndm_ext.region.strengths import Strengths
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS

OWN = Path(__file__).parent
FOLDER = Path(os.environ.get("ASYNDM_GOLDEN") or OWN)
CURVES = {"bin": "quadratic", "lin": "piecewise linear", "exp": "exponential", "linear": "linear"}
TIMESTEPS = 1000

# States and latents. Two states this close can be rounded to different timesteps only where they are this close to
# x.5: the authors' float32 falls on one side or the other, and that is no error of ours.
TOLERANCE = 5e-4


def cases_of(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "public").glob("*.npz") if p.name != "inputs.npz")


@cache
def inputs_of(folder: Path) -> dict[str, Tensor]:
    with np.load(folder / "public" / "inputs.npz") as file:
        return {name: torch.from_numpy(file[name]).float() for name in file.files}


@cache
def unet_of(folder: Path) -> torch.nn.Module:
    diffusers = pytest.importorskip("diffusers")
    from safetensors.torch import load_file

    config = json.loads((folder / "unet" / "config.json").read_text())
    net = diffusers.UNet2DConditionModel.from_config(config)
    weights = load_file(folder / "unet" / "unet_diffusers_fp16exact.safetensors")
    net.load_state_dict({name: value.float() for name, value in weights.items()})
    return net.eval().requires_grad_(False)


def noise_table() -> NoiseTable:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    return NoiseTable.from_alphas_cumprod(torch.cumprod(1 - betas, dim=0))


def ties(state: Tensor) -> Tensor:
    """Where a state is so close to x.5 that float error decides to which timestep it is rounded, bool."""
    return (state - state.floor() - 0.5).abs() <= TOLERANCE


class TieBreakingSchedule(PixelSchedule):
    """Walks on its own; only a pixel whose recorded state is a tie takes the neighbour that the record took.

    Args:
        states: recorded, before rounding, ``(steps + 1, B, 1, H, W)`` float64.
    """

    def __init__(self, states: Tensor, base: BaseSchedule, shape: tuple[int, int, int, int], curve: str) -> None:
        self.states = states
        super().__init__(base, shape, curve)

    def _tick(self, strength: Tensor) -> Tensor:
        own = super()._tick(strength)
        recorded = self.states[self._updates_done - 1]
        # Both neighbours of the same x.5, and nothing further away.
        self.level = torch.where(ties(recorded) & ((own - recorded).abs() < 0.5 + TOLERANCE), recorded.round(), own)
        return self.level


def check_step(i: int, schedule: PixelSchedule, recorded: Tensor) -> None:
    """The states and the timesteps at which step ``i`` calls the network."""
    assert (schedule.exact_level - recorded).abs().max() < TOLERANCE, f"state of step {i}"
    assert torch.equal(schedule.level, recorded.round()), f"timesteps of step {i}"


class Case:
    """One recorded run and the ingredients to repeat it.

    Args:
        offset: the timestep at which the authors' schedule ends.
    """

    def __init__(self, path: Path, offset: float = 1.0) -> None:
        with np.load(path) as file:
            self.record = {name: file[name] for name in file.files}
        self.meta = json.loads(str(self.record["meta"]))
        self.folder = path.parent.parent
        self.inputs = inputs_of(self.folder)
        self.offset = offset
        self.steps = self.meta["steps"]
        self.images, _, self.height, self.width = self.inputs["lat0"].shape
        self.shape = (self.images, 1, self.height, self.width)
        self.strengths = torch.tensor(self.meta["item_k"], dtype=torch.float64)

    @property
    def states(self) -> Tensor:
        return torch.from_numpy(self.record["state_t"]).double().unsqueeze(2)

    def schedule(self) -> PixelSchedule:
        base = BaseSchedule.authors_ddim(self.steps, TIMESTEPS, self.offset)
        return TieBreakingSchedule(self.states, base, self.shape, CURVES[self.meta["curve"]])

    def model(self) -> GuidedUNet:
        columns = [[[i + 1] for i in self.meta["item_idx"]]] * self.images
        neg = self.inputs["neg"].repeat(self.images, 1, 1)
        guidance, kind = self.meta["guidance"], self.meta["prediction_type"]
        cond = self.inputs["cond"]
        return GuidedUNet(unet_of(self.folder), cond, neg, guidance, noise_table(), kind, "timestep", columns)

    def noise(self):
        rows = iter(self.inputs["noise"])
        return lambda x: next(rows)

    def strength_of(self, masks: Tensor) -> Tensor:
        """The strength map of recorded masks, which overlap nowhere."""
        cells = (masks * self.strengths.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        return enlarge(cells, (self.height, self.width))

    def fixed_maps(self, model: GuidedUNet) -> Tensor:
        """The plain pass of the fixed-mask mode: attention averaged over the ordinary DDIM run, same noise."""
        stride = TIMESTEPS // self.steps
        base = BaseSchedule(
            nodes=(torch.arange(self.steps).flip(0) * stride + 1).double(), final=0.0, log=False, whole=True
        )
        region = Recorder(FixedRegion.everything(self.shape, 0.0))
        run = Run(
            model,
            PixelSchedule(base, self.shape, "linear"),
            region,
            self.inputs["lat0"],
            FromHost(randn_like=self.noise(), table=noise_table()),
        )
        SOLVERS["DDIM"].sample(run, self.inputs["lat0"], eta=self.meta["eta"])
        return torch.stack(region.maps).mean(dim=0)


class Recorder:
    """A region that notes the attention it is shown."""

    def __init__(self, region) -> None:
        self.region = region
        self.maps: list[Tensor] = []
        self.newest: list[Tensor] = []

    def observe(self, maps: Tensor, progress: float) -> None:
        self.region.observe(maps, progress)
        self.maps.append(maps)
        if isinstance(self.region, ObjectRegion):
            self.newest.append(self.region._masks[-1].strength(self.region.strengths.at(progress)))

    def strength(self, progress: float) -> Tensor:
        return self.region.strength(progress)


def reproduce(case: Case, schedule: PixelSchedule | None = None) -> None:
    """Run the case here and compare states, timesteps, masks, attention, network output and latents.

    Args:
        schedule: instead of the case's own.
    """
    record, meta, states = case.record, case.meta, case.states
    masks_expected = torch.from_numpy(record["mask16"]).bool()
    schedule = schedule or case.schedule()
    options = MaskOptions(meta["mask_thr"])
    model = case.model()
    latents: list[Tensor] = []
    eps_pairs: list[Tensor] = []
    with model.attached():
        if meta["static_mask"]:
            mean = case.fixed_maps(model)
            expected = torch.from_numpy(record["base_raw_cross_mean"]).transpose(1, 2).reshape(mean.shape)
            assert ((mean - expected).abs() / expected).max() < 1e-4
            region = Recorder(FixedObjects(case.shape, Strengths.of(case.strengths), mean, options))
            assert torch.equal(region.strength(0.0), case.strength_of(masks_expected[0])), "mask flips"
        else:
            first = float(case.strengths[int(np.argmax(meta["item_idx"]))])
            region = Recorder(ObjectRegion(case.shape, case.strengths, options, lag=1, initial=first))
        run = Run(model, schedule, region, case.inputs["lat0"], FromHost(randn_like=case.noise(), table=noise_table()))

        real_model = run.model

        def spied(x: Tensor) -> Tensor:
            check_step(len(latents), schedule, states[len(latents)])
            latents.append(x)
            answer = real_model(x)
            eps_pairs.append(model.last_output)
            return answer

        run.model = spied
        latents.append(SOLVERS["DDIM"].sample(run, case.inputs["lat0"], eta=meta["eta"]))

    assert len(eps_pairs) == case.steps
    raw = torch.from_numpy(record["raw_cross"]).transpose(2, 3)
    for i, maps in enumerate(region.maps):
        expected = raw[i].reshape(maps.shape)
        assert ((maps - expected).abs() / expected).max() < 1e-4, f"attention of step {i}"
    for i, newest in enumerate(region.newest):
        assert torch.equal(newest, case.strength_of(masks_expected[i])), f"mask flips in step {i}"
    step = meta["noise_pred_step"]
    assert (eps_pairs[step] - torch.from_numpy(record["eps_pair"])).abs().max() < 5e-5, "network output"
    for position, i in enumerate(meta["latent_steps"]):
        difference = (latents[i + 1] - torch.from_numpy(record["latents"][position])).abs().max()
        assert difference < TOLERANCE, f"latents after step {i}: {difference}"
