"""Numbers worked out by hand, and coverage of the clustered interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.evaluation.statistics import clustered_interval, compare, mean_interval, wilson


def test_wilson_matches_the_papers_table() -> None:
    # MusicRL Table 1, R against MusicLM: 65.0 % of 303 judgements won and 12.9 % lost, so 197 and 39.
    win, loss = 197, 39
    low, high = wilson(win, win + loss)
    assert (round(100 * low, 1), round(100 * high, 1)) == (78.2, 87.7)


def test_wilson_needs_a_trial() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        wilson(0, 0)


def test_compare_counts_wins_ties_and_losses() -> None:
    x = np.array([5, 4, 3, 2, 4, 5.0])
    y = np.array([3, 4, 4, 1, 2, 1.0])
    result = compare(x, y, np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1]))
    assert (result.win, result.tie, result.loss, result.n) == (4, 1, 1, 6)
    assert result.rate == pytest.approx(0.8)
    assert (result.raters, result.prompts) == (3, 2)


def test_all_ties_have_no_rate() -> None:
    result = compare(np.ones(4), np.ones(4), np.arange(4), np.arange(4))
    assert result.rate is None
    assert result.ci95 is None
    assert result.wilcoxon_p is None


def test_unanimous_wins_do_not_claim_certainty() -> None:
    n = 12
    result = compare(np.full(n, 5.0), np.ones(n), np.arange(n) % 3, np.arange(n) // 3)
    assert result.rate == 1.0
    assert result.ci95 is not None
    assert result.ci95[0] == pytest.approx(wilson(4, 4)[0])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_swapping_the_models_mirrors_the_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(1, 6, 30).astype(float), rng.integers(1, 6, 30).astype(float)
    rater, prompt = np.tile(np.arange(3), 10), np.repeat(np.arange(10), 3)
    a, b = compare(x, y, rater, prompt, resamples=50), compare(y, x, rater, prompt, resamples=50)
    assert (a.win, a.tie, a.loss) == (b.loss, b.tie, b.win)
    assert a.wilcoxon_p == b.wilcoxon_p
    if a.rate is not None and b.rate is not None:
        assert a.rate == pytest.approx(1 - b.rate)


def test_clustered_interval_covers_where_the_naive_one_does_not() -> None:
    """Votes of one rater share a leaning; over 120 studies the clustered interval holds the truth far more often."""
    rng = np.random.default_rng(5)
    raters, each, studies = 12, 20, 120
    clustered = naive = 0
    for study in range(studies):
        leaning = 1 / (1 + np.exp(-rng.normal(0, 0.8, raters)))
        rater = np.repeat(np.arange(raters), each)
        prompt = np.tile(np.arange(each), raters)
        success = (rng.random(raters * each) < leaning[rater]).astype(float)
        low, high = clustered_interval(success, np.ones_like(success), rater, prompt, seed=study, resamples=300)
        clustered += low <= 0.5 <= high
        low, high = wilson(success.sum(), len(success))
        naive += low <= 0.5 <= high
    assert clustered / studies > 0.88
    assert naive / studies < 0.85


def test_mean_interval_holds_the_mean_and_widens_with_clusters() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=20)
    values = np.repeat(base, 5)
    mean, low, high = mean_interval(values, np.repeat(np.arange(20), 5))
    assert low < mean < high
    _, low_free, high_free = mean_interval(values, np.arange(100))
    assert high - low > 1.5 * (high_free - low_free)
