"""The authors' code, reproduced: states, masks, attention, network output and latents of every recorded case."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asyndm_ext.grid import enlarge
from asyndm_ext.hosts.embedded import GuidedUNet
from asyndm_ext.masks import MaskOptions
from asyndm_ext.noise import NoiseTable
from asyndm_ext.regions import FixedRegion, ObjectRegion, strength_from
from asyndm_ext.run import Run
from asyndm_ext.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.solvers import SOLVERS

FOLDER = Path(os.environ.get("ASYNDM_GOLDEN") or Path(__file__).parent)
CASES = sorted(p for p in (FOLDER / "public").glob("*.npz") if p.name != "inputs.npz")
CURVES = {"bin": "quadratic", "lin": "piecewise linear", "exp": "exponential", "linear": "linear"}
TIMESTEPS = 1000


@cache
def inputs() -> dict[str, Tensor]:
    with np.load(FOLDER / "public" / "inputs.npz") as file:
        return {name: torch.from_numpy(file[name]).float() for name in file.files}


@cache
def unet() -> torch.nn.Module:
    diffusers = pytest.importorskip("diffusers")
    from safetensors.torch import load_file

    config = json.loads((FOLDER / "unet" / "config.json").read_text())
    net = diffusers.UNet2DConditionModel.from_config(config)
    weights = load_file(FOLDER / "unet" / "unet_diffusers_fp16exact.safetensors")
    net.load_state_dict({name: value.float() for name, value in weights.items()})
    return net.eval().requires_grad_(False)


def noise_table() -> NoiseTable:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    return NoiseTable.from_alphas_cumprod(torch.cumprod(1 - betas, dim=0))


class Case:
    """One recorded run and the ingredients to repeat it."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.record = {name: file[name] for name in file.files}
        self.meta = json.loads(str(self.record["meta"]))
        self.steps = self.meta["steps"]
        self.images, _, self.height, self.width = inputs()["lat0"].shape
        self.shape = (self.images, 1, self.height, self.width)
        self.strengths = torch.tensor(self.meta["item_k"], dtype=torch.float64)
        self.tie_sensitive = bool(self.meta.get("tie_sensitive", False))

    def model(self) -> GuidedUNet:
        columns = [[[i + 1] for i in self.meta["item_idx"]]] * self.images
        neg = inputs()["neg"].repeat(self.images, 1, 1)
        guidance, kind = self.meta["guidance"], self.meta["prediction_type"]
        cond = inputs()["cond"]
        return GuidedUNet(unet(), cond, neg, guidance, noise_table(), kind, "timestep", columns)

    def noise(self):
        rows = iter(inputs()["noise"])
        return lambda x: next(rows)

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
            inputs()["lat0"],
            randn_like=self.noise(),
            table=noise_table(),
        )
        SOLVERS["DDIM"].sample(run, inputs()["lat0"], eta=self.meta["eta"])
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
            self.newest.append(self.region._maps[-1])

    def strength(self, progress: float) -> Tensor:
        return self.region.strength(progress)


class ForcedSchedule(PixelSchedule):
    """Walks the recorded timesteps; the clock runs beside them."""

    def __init__(self, levels: Tensor, *args) -> None:
        self.levels = levels
        super().__init__(*args)

    def _tick(self, strength: Tensor) -> Tensor:
        super()._tick(strength)
        self.level = self.levels[self._updates_done - 1]
        return self.level


def test_there_are_cases() -> None:
    assert CASES, f"no traces in {FOLDER / 'public'}"


@pytest.mark.parametrize("path", CASES, ids=[p.stem for p in CASES])
def test_case(path: Path) -> None:
    case = Case(path)
    record, meta = case.record, case.meta
    state = torch.from_numpy(record["state_t"]).double().unsqueeze(2)
    masks_expected = torch.from_numpy(record["mask16"]).bool()
    schedule = PixelSchedule(BaseSchedule.authors_ddim(case.steps), case.shape, CURVES[meta["curve"]])
    if case.tie_sensitive:
        forced = state.round()
        schedule = ForcedSchedule(forced, BaseSchedule.authors_ddim(case.steps), case.shape, CURVES[meta["curve"]])

    options = MaskOptions(meta["mask_thr"])

    def wanted(masks: Tensor) -> Tensor:
        """The strength map of the recorded masks, which overlap nowhere."""
        cells = (masks * case.strengths.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        return enlarge(cells, (case.height, case.width))

    model = case.model()
    states, levels, latents, eps_pairs = [], [], [], []
    with model.attached():
        if meta["static_mask"]:
            mean = case.fixed_maps(model)
            expected = torch.from_numpy(record["base_raw_cross_mean"]).transpose(1, 2).reshape(mean.shape)
            assert ((mean - expected).abs() / expected).max() < 1e-4
            fixed = strength_from(mean, case.strengths, options, case.shape)
            assert torch.equal(fixed, wanted(masks_expected[0])), "mask flips"
            region = Recorder(FixedRegion(fixed))
        else:
            first = float(case.strengths[int(np.argmax(meta["item_idx"]))])
            region = Recorder(ObjectRegion(case.shape, case.strengths, options, lag=1, initial=first))
        run = Run(model, schedule, region, inputs()["lat0"], randn_like=case.noise(), table=noise_table())

        real_model = run.model

        def spied(x: Tensor) -> Tensor:
            states.append(schedule.exact_level)
            levels.append(schedule.level)
            latents.append(x)
            answer = real_model(x)
            eps_pairs.append(model.last_output)
            return answer

        run.model = spied
        latents.append(SOLVERS["DDIM"].sample(run, inputs()["lat0"], eta=meta["eta"]))

    tolerance = 5e-4
    for i in range(case.steps):
        assert (states[i] - state[i]).abs().max() < tolerance, f"state of step {i}"
        if not case.tie_sensitive:
            assert torch.equal(levels[i], state[i].round()), f"timesteps of step {i}"
    raw = torch.from_numpy(record["raw_cross"]).transpose(2, 3)
    for i, maps in enumerate(region.maps):
        expected = raw[i].reshape(maps.shape)
        assert ((maps - expected).abs() / expected).max() < 1e-4, f"attention of step {i}"
    for i, newest in enumerate(region.newest):
        assert torch.equal(newest, wanted(masks_expected[i])), f"mask flips in step {i}"
    step = meta["noise_pred_step"]
    assert (eps_pairs[step] - torch.from_numpy(record["eps_pair"])).abs().max() < 5e-5, "network output"
    for position, i in enumerate(meta["latent_steps"]):
        difference = (latents[i + 1] - torch.from_numpy(record["latents"][position])).abs().max()
        assert difference < tolerance, f"latents after step {i}: {difference}"
