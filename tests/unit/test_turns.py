"""Objects in turn: which order is meant, until when each object lags, and that every clock stays one of the paper's."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.clock.curves import CURVES, curve_height
from asyndm_ext.clock.schedule import PixelClock
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects, without, written
from asyndm_ext.region.regions import FixedObjects, MaskOptions, ObjectRegion, region_for
from asyndm_ext.region.strengths import Strengths, strengths_for
from asyndm_ext.region.turns import IN_TURN, LAST_FIRST, ORDERS, TOGETHER, circle, turns, until
from asyndm_ext.settings import Settings, SettingsError
from asyndm_ext.ui.overlap import Overlap


def clocks(objects: str, order: str = TOGETHER, places: list[int] | None = None, **settings: object) -> list[float]:
    """Until when each object lags, as they are written."""
    chosen = Settings.from_dict({"objects": objects, "order": order, **settings})
    where = places or list(range(len(chosen.objects)))
    found = strengths_for(chosen, [chosen.objects], [where])
    return [1.0] * len(chosen.objects) if found.until is None else [round(end, 6) for end in found.until.tolist()]


# -- what is written


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("bike > shark", {"bike": [], "shark": ["bike"]}),
        ("ground > bike > shark, moon", {"ground": [], "bike": ["ground"], "shark": ["bike"], "moon": []}),
        ("sea>shark,bike>shark", {"sea": [], "shark": ["sea", "bike"], "bike": []}),
        ("red hat#2:0.4 > cat, dog > Cat:0.5", {"red hat#2:0.4": [], "cat:0.5": ["red hat#2", "dog"], "dog": []}),
        ("cat, bike > cat, bike > cat", {"cat": ["bike"], "bike": []}),
        ([{"name": "cat", "after": "bike"}, "bike"], {"cat": ["bike"], "bike": []}),
        ([{"name": "cat", "after": ["Bike", "a#1"]}, "bike", "a#1"], {"cat": ["bike", "a#1"], "bike": [], "a#1": []}),
    ],
)
def test_an_order_is_read(text, after):
    assert {str(spec): list(spec.after) for spec in parse_objects(text)} == after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bike > shark > bike", "goes round in a circle: 'bike > shark > bike'"),
        ("cat, a > b, b > c, c > a", "goes round in a circle: '[abc] > [abc] > [abc] > [abc]'"),
        ("cat > cat", "circle: 'cat > cat'"),
        ("cat > ", "in 'cat >' a name is missing beside the >"),
        ("> cat", "a name is missing"),
        ("a > > b", "a name is missing"),
        ("cat:0.5 > dog, cat:0.6", "'cat' is given twice"),
        ([{"name": "cat", "after": ["bike"]}], "'cat' comes after 'bike', which is none of the objects"),
        ([{"name": "cat", "after": 7}], "what 'cat' comes after must be names, but it is 7"),
        ({"a > b": 0.5}, "words without"),
    ],
)
def test_an_order_that_is_none_is_refused_before_anything_is_drawn(text, message):
    with pytest.raises(SettingsError, match=message):
        Settings.from_dict({"objects": text})


@st.composite
def graphs(draw: st.DrawFn) -> list[ObjectSpec]:
    """Objects a, b, c, ... in some order, each after some that come before it in another one."""
    number = draw(st.integers(1, 6))
    names, rank = draw(st.permutations("abcdef"[:number])), draw(st.permutations(range(number)))
    specs = []
    for k, name in enumerate(names):
        earlier = [names[j] for j in range(number) if rank[j] < rank[k]]
        after = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        strength = draw(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 1.0])))
        specs.append(ObjectSpec(name, strength, None, tuple(sorted(after, key=names.index))))
    return specs


@given(graphs())
def test_what_is_written_reads_back_with_its_order(specs):
    entries = written(specs)
    assert list(parse_objects(", ".join(entries))) == specs
    assert list(parse_objects(entries)) == specs
    assert Settings.from_dict({"objects": entries}).infotext()["AsynDM objects"].rstrip(",") == ", ".join(entries)


@given(graphs(), st.data())
def test_without_one_object_the_others_keep_their_order(specs, data):
    gone = data.draw(st.sampled_from(specs))
    left = without(specs, gone)
    order = {spec.label: set(spec.after) for spec in specs}

    def before(label: str, known: dict[str, set[str]]) -> set[str]:
        return set().union(*({one} | before(one, known) for one in known[label]))

    kept = {spec.label: set(spec.after) for spec in left}
    assert [spec.label for spec in left] == [spec.label for spec in specs if spec is not gone]
    assert all(before(label, kept) == before(label, order) - {gone.label} for label in kept)


@given(graphs())
def test_there_is_no_circle_but_where_one_is_closed(specs):
    number = {spec.label: k for k, spec in enumerate(specs)}
    after = [[number[label] for label in spec.after] for spec in specs]
    assert circle(after) == []
    for k, those in enumerate(after):
        for earlier in those:
            closed = [list(one) for one in after]
            closed[earlier].append(k)
            found = circle(closed)
            assert found[0] == found[-1]
            assert all(one in closed[other] for one, other in itertools.pairwise(found))


# -- whose turn it is


def test_together_is_the_paper_s_and_so_is_a_lone_object():
    assert clocks("cat, dog") == [1, 1]
    assert clocks("cat", IN_TURN) == clocks("cat", LAST_FIRST) == [1]
    assert Settings().order == TOGETHER


def test_in_turn_is_the_order_of_the_prompt_not_of_the_list():
    third, two = round(1 / 3, 6), round(2 / 3, 6)
    assert clocks("cat, dog", IN_TURN, [3, 9]) == [third, two]
    assert clocks("cat, dog", IN_TURN, [9, 3]) == [two, third]
    assert clocks("cat, dog", LAST_FIRST, [3, 9]) == [two, third]
    assert clocks("a, b, c", IN_TURN) == [0.25, 0.5, 0.75]


def test_an_order_of_one_s_own_counts_in_place_of_the_prompt_s():
    for order in (TOGETHER, IN_TURN):
        assert clocks("shark, bike > shark", order, [1, 5]) == [round(2 / 3, 6), round(1 / 3, 6)]
    assert clocks("bike > shark", LAST_FIRST, [5, 1]) == [round(2 / 3, 6), round(1 / 3, 6)]
    assert clocks("ground > bike > shark, moon") == [0.25, 0.5, 0.75, 1]
    assert clocks("sea > shark, bike > shark") == [round(1 / 3, 6), round(2 / 3, 6), round(1 / 3, 6)]
    assert clocks("a > b > c, d > c") == [0.25, 0.5, 0.75, 0.25]


def test_turns_share_the_part_of_the_steps_in_which_anything_lags():
    assert clocks("a, b, c", IN_TURN, start=0.2, end=0.6) == [0.3, 0.4, 0.5]


@given(graphs(), st.sampled_from(ORDERS))
def test_nobody_s_turn_comes_before_those_that_it_waits_for(specs, order):
    after = {spec.label: spec.after for spec in specs}
    ends = dict(zip(after, clocks(", ".join(written(specs)), order), strict=True))
    for label, those in after.items():
        for earlier in those:
            assert ends[earlier] > ends[label] if order == LAST_FIRST else ends[earlier] < ends[label]


def test_images_of_a_batch_have_turns_of_their_own():
    cat, dog = ObjectSpec("cat"), ObjectSpec("dog", 0.4)
    found = strengths_for(Settings(order=IN_TURN), [[cat, dog], [dog, None]], [[1, 2], [1, None]])
    assert found.own.tolist() == [[0.7, 0.4], [0.4, 0.7]]
    assert found.until.tolist() == [[1 / 3, 2 / 3], [1.0, 1.0]]
    together = strengths_for(Settings(), [[cat, dog], [cat, dog]], [[1, 2], [2, 1]])
    assert together.own.tolist() == [0.7, 0.4] and together.until is None, "the plain path"


# -- the clocks: Proposition 1 holds for every pixel


@given(
    graphs(), st.sampled_from(ORDERS), st.sampled_from(CURVES), st.integers(2, 25), st.floats(0, 1), st.integers(0, 99)
)
def test_every_pixel_reaches_the_end_from_wherever_its_turns_have_led_it(specs, order, curve, steps, strength, seed):
    settings = Settings.from_dict({"objects": written(specs), "order": order, "strength": strength, "curve": curve})
    strengths = strengths_for(settings, [settings.objects], [range(len(specs))])
    region = ObjectRegion((1, 1, 4, 4), strengths)
    clock = PixelClock((1, 1, 4, 4), steps, curve)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        before, remaining = clock.height, clock.remaining
        region.observe(torch.rand(1, len(specs), 4, 4, generator=generator), 1 - remaining)
        slow = region.strength(1 - remaining)
        after = clock.advance(slow)
        assert bool((after <= before).all()) and bool((after >= 0).all())
        assert bool((after >= clock.remaining - 1e-12).all()), "nobody is ahead of the host"
        still = slow == 0
        assert torch.allclose(after[still], before[still] * (1 - 1 / (steps - step)), atol=1e-12), "straight to the end"
    assert bool((clock.height == 0).all())


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear", "exponential"])
def test_an_object_follows_the_curve_and_then_the_straight_line(curve):
    objects = Settings.from_dict({"objects": "bike > shark"}).objects
    strengths = strengths_for(Settings(objects=objects, strength=1.0), [objects], [[0, 1]])
    maps = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]])
    region, clock = ObjectRegion((1, 1, 1, 3), strengths), PixelClock((1, 1, 1, 3), 30, curve)
    heights = [clock.height.flatten().tolist()]
    for step in range(30):
        region.observe(maps, step / 30)
        heights.append(clock.advance(region.strength(step / 30)).flatten().tolist())
    for pixel, end in ((0, 10), (1, 20), (2, 0)):
        for step in range(31):
            at = min(step, end)
            expected = float(curve_height(curve, torch.tensor(at / 30, dtype=torch.float64), 1.0 if end else 0.0))
            expected *= 1 if step <= end else (30 - step) / (30 - end)
            assert heights[step][pixel] == pytest.approx(expected, abs=1e-12)


def test_where_objects_overlap_the_later_one_s_turn_counts():
    region = ObjectRegion(
        (1, 1, 1, 3), strengths_for(Settings(order=IN_TURN), [[ObjectSpec("a"), ObjectSpec("b")]], [[0, 1]])
    )
    region.observe(torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 1.0, 1.0]]]]))
    assert [region.strength(at).flatten().tolist() for at in (0.0, 0.4, 0.7)] == [[0.7] * 3, [0, 0.7, 0.7], [0, 0, 0]]


def test_a_map_is_made_anew_only_where_a_turn_ends():
    looks = []
    strengths = Strengths(torch.ones(2).double(), torch.tensor([1 / 3, 2 / 3]).double())
    region = ObjectRegion((1, 1, 2, 2), strengths, see=looks.append)
    region.observe(torch.rand(1, 2, 2, 2))
    maps = [region.strength(at) for at in (0.0, 0.3, 0.4, 0.6, 0.8)]
    assert [maps[0] is maps[1], maps[1] is maps[2], maps[2] is maps[3], maps[3] is maps[4]] == [
        True,
        False,
        True,
        False,
    ]
    assert len(looks) == 1 and looks[0].shape == (1, 2, 2, 2)


def test_a_fixed_mask_has_turns_too():
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    settings = Settings(mask_source="fixed", order=IN_TURN)
    strengths = strengths_for(settings, [[ObjectSpec("a"), ObjectSpec("b")]], [[0, 1]])
    region = region_for(settings, (1, 1, 2, 4), strengths, average=maps)
    assert isinstance(region, FixedObjects)
    region.observe(None, 0.0)
    assert region.strength(0.1)[0, 0, 0].tolist() == [0.7] * 4
    assert region.strength(0.5)[0, 0, 0].tolist() == [0, 0, 0.7, 0.7]


@pytest.mark.parametrize("order", ORDERS)
def test_at_strength_0_an_order_changes_nothing(order):
    settings = Settings(strength=0.0, order=order)
    strengths = strengths_for(settings, [[ObjectSpec("a"), ObjectSpec("b")]], [[0, 1]])
    region = region_for(settings, (1, 1, 2, 2), strengths)
    region.observe(torch.rand(1, 2, 2, 2), 0.0)
    assert not any(region.strength(at).any() for at in (0.0, 0.5, 0.9))


# -- objects that attention cannot tell apart


def overlap(*masks: list[list[float]], own: Strengths | None = None) -> str | None:
    looked = Overlap()
    for mask in masks:
        looked.see(torch.tensor([mask]).unsqueeze(2).double())
    turn = own or Strengths(torch.ones(2).double(), torch.tensor([0.3, 0.6]).double())
    return looked.note([["shark", "bike:0.5"]], turn)


def test_objects_that_share_most_of_their_pixels_are_told():
    assert overlap([[1, 1, 1, 0], [0, 1, 1, 1]]) is None, "half of what they cover together"
    told = overlap([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert told is not None and told.startswith("'shark' and 'bike:0.5' share 75% of their pixels")
    assert overlap([[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [0, 1, 1, 1]]) is None, "on average over the steps"
    together = Strengths(torch.ones(2).double())
    assert overlap([[1, 1], [1, 1]], own=together) is None, "all lag alike"
    same = Strengths(torch.ones(2).double(), torch.tensor([0.5, 0.5]).double())
    assert overlap([[1, 1], [1, 1]], own=same) is None, "they have the same turn"
    assert overlap([[0, 0], [0, 0]]) is None, "both are nowhere"


def test_so_are_those_with_strengths_of_their_own():
    own = Strengths(torch.tensor([0.7, 0.3]).double())
    assert overlap([[1, 1, 1, 0], [0, 1, 1, 1]], own=own) is None, "half of what they cover together"
    told = overlap([[1, 1, 1, 0], [1, 1, 1, 1]], own=own)
    assert told == (
        "'shark' and 'bike:0.5' share 75% of their pixels, where the larger strength counts: the attention hardly "
        "tells them apart, so they lag by nearly as much"
    )
    both = Strengths(own.own, torch.tensor([0.3, 0.6]).double())
    assert "the later one's turn" in overlap([[1, 1], [1, 1]], own=both), "the turn is what is asked for first"


@pytest.mark.parametrize(
    ("own", "until_", "differ"),
    [
        ([0.7, 0.7], None, False),
        ([0.7, 0.3], None, True),
        ([0.7, 0.7], [0.5, 1.0], True),
        ([[0.7, 0.7], [0.3, 0.3]], None, False),  # two images, each with one strength
        ([[0.7, 0.7], [0.7, 0.3]], None, True),
        ([], None, False),
    ],
)
def test_whether_objects_are_slow_alike(own, until_, differ):
    end = None if until_ is None else torch.tensor(until_).double()
    assert Strengths(torch.tensor(own).double(), end).differ is differ


def test_the_two_that_share_most_are_named_in_their_image():
    looked = Overlap()
    weights = torch.zeros(2, 3, 1, 4).double()
    weights[0, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0])
    weights[1, 1:, 0, :3] = 1
    looked.see(weights)
    turn = Strengths(torch.ones(3).double(), torch.tensor([0.25, 0.5, 0.75]).double())
    assert looked.note([["a", "b", "c"], ["d", "e", "f"]], turn).startswith("'e' and 'f' share 100%")


def test_options_stay_what_they_were():
    assert MaskOptions() == Settings().mask_options
    assert until([None, None]) == [1.0, 1.0] and turns([], TOGETHER) == []
