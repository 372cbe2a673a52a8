"""Valid settings, for property tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from PIL import Image

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.region.mask_image import encode
from asyndm_ext.region.turns import ORDERS
from asyndm_ext.settings import FIELDS, MASK_SOURCES, PASSES, REGIONS, SHOWN, Settings

MASK = encode(Image.new("L", (4, 4), 255))

words = st.text(alphabet=st.characters(blacklist_characters=",:#>", blacklist_categories=("Cs", "Cc")), max_size=12)
valid = st.builds(
    dict,
    enabled=st.booleans(),
    objects=st.lists(words, max_size=4),
    strength=st.floats(0, 1),
    curve=st.sampled_from(CURVES),
    threshold=st.floats(0.1, 5),
    region=st.sampled_from(REGIONS),
    mask=st.sampled_from(["", MASK]),
    mask_invert=st.booleans(),
    mask_source=st.sampled_from(MASK_SOURCES),
    soft=st.booleans(),
    smoothing=st.floats(0, 4),
    min_area=st.floats(0, 0.4),
    max_area=st.floats(0.5, 1),
    start=st.floats(0, 0.4),
    end=st.floats(0.5, 1),
    hold_after=st.floats(0, 1),
    hires=st.sampled_from(PASSES),
    adetailer=st.booleans(),
    show=st.sampled_from(SHOWN),
    save_shown=st.booleans(),
    order=st.sampled_from(ORDERS),
    compare_plain=st.booleans(),
)
"""Dictionaries of all settings, in the order of the table."""


def in_use(settings: Settings) -> Settings:
    """What comes back from an infotext: what the region uses, the rest as by default, and the mask of its control."""
    unused = [spec for spec in FIELDS if not settings.uses(spec) and spec.name != "mask"]
    return replace(settings, **{spec.name: spec.default for spec in unused})
