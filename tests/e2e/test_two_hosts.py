"""The same request in two WebUIs (A1111 and Forge, say): the same schedule, and the same masks from the same weights.

The second one is named by ASYNDM_WEBUI_2, and its Python by ASYNDM_WEBUI_2_PYTHON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .server import PROBE, REPOSITORY, Install, WebUI
from .test_asyndm import SETTINGS, difference, levels, off, on

# Where the noise comes from is a setting of the host; the same in both.
OPTIONS = {"randn_source": "CPU"}
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(scope="module")
def hosts(
    launch: Callable[..., WebUI], models_of: Callable[[Install], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WebUI, WebUI]]:
    other = Install.from_environment("ASYNDM_WEBUI_2")
    if other is None:
        pytest.skip("set ASYNDM_WEBUI_2 (and ASYNDM_WEBUI_2_PYTHON) to compare two WebUIs")
    problem = other.problem()
    if problem:
        pytest.fail(problem, pytrace=False)
    extensions = {"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE}
    first = launch("first", extensions=extensions, options=OPTIONS)
    folder = tmp_path_factory.mktemp("second")
    with WebUI(other, models_of(other), folder, extensions, options=OPTIONS, name="second") as second:
        yield first, second


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Euler a", "DDIM"])
@pytest.mark.parametrize("model", ["tiny-sd2", "tiny-sd2v", "tiny-sd1", "tiny-sdxl"])
def test_same_masks_and_schedule(
    hosts: tuple[WebUI, WebUI], model: str, sampler: str, capsys: pytest.CaptureFixture
) -> None:
    found = []
    for webui in hosts:
        plain = off(webui, model, sampler_name=sampler)
        slow = on(webui, model, SETTINGS, sampler_name=sampler)
        found.append((plain.image, slow.image, *levels(webui)))
    (plain, slow, nominal, level, strength), (plain_2, slow_2, nominal_2, level_2, strength_2) = found
    same = strength == strength_2
    agreement = same.mean(axis=(1, 2, 3))
    with capsys.disabled():
        print(
            f"\n{model}, {sampler}: pictures differ by {difference(plain, plain_2)} grey levels off, "
            f"{difference(slow, slow_2)} on; masks agree on {agreement.min():.2%} of the pixels or more"
        )
    assert nominal == pytest.approx(nominal_2, rel=1e-4), "but for the float32 of their tables"
    assert same[0].all(), "the first mask, which is made from the same noise"
    # After that, what one host computes differs from the other's by rounding, the timesteps' above all.
    assert agreement.min() > 0.97
    always_same = same.all(axis=0)
    assert level[:, always_same] == pytest.approx(level_2[:, always_same], rel=1e-4)
