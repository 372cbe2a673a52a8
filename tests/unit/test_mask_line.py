"""The line above the Mask field: which mask a job would use, before there is a job."""

from __future__ import annotations

import re

import pytest

from asyndm_ext.settings import REGIONS
from asyndm_ext.ui.mask_line import REGIONS_WITH_MASK, html


def said(*args: object) -> tuple[str, list[str], bool]:
    """The words, what the buttons press, and whether something is amiss."""
    text = html(*args)  # type: ignore[arg-type]
    words = " ".join(re.sub(r"<button.*?</button>|<[^>]+>", "", text).split())
    return words, re.findall(r'data-press="(\w+)"', text), "asyndm-heed" in text


@pytest.mark.parametrize("region", ["objects", "everything"])
def test_a_region_without_a_mask(region: str) -> None:
    assert html(region, "") == html(region, "", True) == ""
    for kind in ("painted", "picture", "photo"):
        words, presses, amiss = said(region, kind)
        assert f"the region “{region}” does not use it" in words and amiss
        assert presses == ["to_mask", "to_objects_or_mask", "to_objects_and_mask"]


@pytest.mark.parametrize("region", REGIONS_WITH_MASK)
def test_a_region_with_a_mask(region: str) -> None:
    words, presses, amiss = said(region, "")
    assert f"the region “{region}” needs one" in words and "does not come back with an infotext" in words
    assert amiss and presses == []
    words, presses, amiss = said(region, "", True)
    assert "that of the Inpaint tab is used" in words and "does not come back with an infotext" in words and amiss
    assert said(region, "painted") == ("The mask is what you have painted.", [], False)
    words, presses, amiss = said(region, "picture")
    assert words.startswith("The mask is the picture itself") and not amiss and presses == []
    words, presses, amiss = said(region, "photo")
    assert words.startswith("Nothing is painted on the picture yet") and amiss and presses == ["whole"]


def test_the_regions_are_those_of_the_settings() -> None:
    assert set(REGIONS) - set(REGIONS_WITH_MASK) == {"objects", "everything"}
