"""Bootstrap and sign test against distributions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from asyndm_ext.evaluate.statistics import Bootstrap, sign_test


def test_intervals_cover_the_true_difference_as_often_as_they_say():
    """250 experiments of 150 pairs, plain right in 40 %, the method in 47 % and mostly in the same ones."""
    rng = np.random.default_rng(1)
    covered = 0
    for number in range(250):
        plain = rng.random(150) < 0.4
        method = np.where(rng.random(150) < 0.8, plain, rng.random(150) < 0.75)  # 0.8 * 0.4 + 0.2 * 0.75 = 0.47
        d = Bootstrap(150, resamples=600, seed=number).compare(plain.astype(float), method.astype(float))
        covered += d.low <= 0.07 <= d.high
    # The standard error of the coverage is 1.4 points; percentile intervals of 150 pairs are a touch short.
    assert 0.91 <= covered / 250 <= 0.985


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(2).normal(3.0, 2.0, 4000)
    low, high = Bootstrap(4000, resamples=4000).interval(values)
    half = 1.96 * values.std() / math.sqrt(4000)
    assert low == pytest.approx(values.mean() - half, abs=0.06 * half * 2)
    assert high == pytest.approx(values.mean() + half, abs=0.06 * half * 2)


def test_numbers_of_a_comparison():
    plain = np.array([0.0, 1.0, 0.0, 1.0, math.nan])
    method = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    d = Bootstrap(5, resamples=500).compare(plain, method)
    assert (d.pairs, d.plain, d.mean, d.difference, d.better, d.worse) == (4, 0.5, 0.75, 0.25, 2, 1)
    assert math.isnan(d.p) and math.isnan(d.low) and not d.known and not d.clear
    d = Bootstrap(50, resamples=500).compare(np.tile(plain, 10), np.tile(method, 10))
    assert (d.pairs, d.difference, d.better, d.worse) == (40, 0.25, 20, 10) and d.known
    assert d.p == pytest.approx(sign_test(20, 10)) and not d.clear and d.low <= d.difference <= d.high


def test_pairs_are_taken_together():
    """Scores that scatter, a difference that does not: the interval is that of the difference."""
    plain = np.random.default_rng(3).normal(0, 10, 50)
    d = Bootstrap(50, resamples=500).compare(plain, plain + 1)
    assert d.low == pytest.approx(1, abs=1e-5) and d.high == pytest.approx(1, abs=1e-5) and d.clear


def test_seeds_of_a_prompt_are_no_new_prompts():
    """Ten times the same score for each prompt: by pairs the interval is too short by the root of ten."""
    prompts = np.random.default_rng(4).normal(0, 1, 100)
    values, groups = np.repeat(prompts, 10), np.repeat(np.arange(100), 10)
    by_pair = np.subtract(*Bootstrap(1000, 2000).interval(values)[::-1])
    by_prompt = np.subtract(*Bootstrap(groups.tolist(), 2000).interval(values)[::-1])
    alone = np.subtract(*Bootstrap(100, 2000).interval(prompts)[::-1])
    assert by_prompt == pytest.approx(alone, rel=0.05)
    assert by_prompt / by_pair == pytest.approx(math.sqrt(10), rel=0.1)


def test_nothing_to_compare():
    empty = Bootstrap(2).compare(np.array([math.nan, 1.0]), np.array([1.0, math.nan]))
    assert empty.pairs == 0 and math.isnan(empty.difference)
    assert Bootstrap(0).compare(np.array([]), np.array([])).pairs == 0


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 0), (7, 3), (3, 7), (40, 61), (600, 520)])
def test_sign_test_is_the_binomial_one(better, worse):
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(expected, rel=1e-9)
