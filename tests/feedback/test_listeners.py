from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from musicrl.audio.facts import NUMBERS, Facts, as_array, measure
from musicrl.errors import UserError
from musicrl.feedback import listeners, standards, taste
from musicrl.feedback.listeners import Listeners, flip_rate, realised_agreement

RATE = 24_000
USUAL = Facts(
    seconds=5.0,
    tempo=2 ** standards.load().centre["tempo"],
    steadiness=standards.load().centre["steadiness"],
    onset_rate=2 ** standards.load().centre["density"] - 0.25,
    key="C",
    mode="major",
    key_clarity=standards.load().centre["key_clarity"],
    roughness=np.exp(standards.load().centre["roughness"]) - 0.01,
    centroid_hz=2 ** standards.load().centre["brightness"],
    bandwidth_hz=2_000.0,
    rolloff_hz=2 ** standards.load().centre["bandwidth"],
    flatness=0.003,
    low_ratio=0.2,
    noise_share=0.07,
    high_noise_share=10 ** standards.load().centre["high_noise"] - 1e-4,
    noise_floor_db=standards.load().centre["noise_floor"],
    silence_share=0.0,
    clipped_share=0.0,
    peak_db=-3.0,
    loudness=-18.0,
)
WORSE = {
    "key_clarity": 0.5,
    "steadiness": 0.2,
    "roughness": 0.4,
    "noise_floor_db": -5.0,
    "high_noise_share": 0.2,
    "rolloff_hz": 1_000.0,
    "silence_share": 0.5,
    "clipped_share": 0.05,
}


def various(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Facts of n clips that vary about as real ones do, and prompt matches."""
    rng = np.random.default_rng(seed)
    usual = as_array([USUAL])[0]
    table = np.tile(usual, (n, 1))
    for name, spread in {"key_clarity": 0.06, "steadiness": 0.14, "noise_floor_db": 7.0}.items():
        table[:, NUMBERS.index(name)] += spread * rng.standard_normal(n)
    for name, spread in {"tempo": 0.3, "onset_rate": 0.5, "roughness": 0.3, "centroid_hz": 0.3}.items():
        table[:, NUMBERS.index(name)] *= np.exp(spread * rng.standard_normal(n))
    return table, rng.uniform(0, 1, n)


def decided(population: Listeners, difference: float, n: int, first: str | NDArray[np.str_]) -> NDArray[np.str_]:
    rng = np.random.default_rng(0)
    return population.prefer(rng.integers(0, len(population), n), difference, 0.0, rng, first)


def test_the_dial() -> None:
    assert flip_rate(0.60) == pytest.approx(0.2764, abs=1e-4)
    assert flip_rate(0.75) == pytest.approx(0.1464, abs=1e-4)
    assert flip_rate(1.0) == 0
    for agreement in (0.55, 0.6, 0.9):
        p = flip_rate(agreement)
        assert p**2 + (1 - p) ** 2 == pytest.approx(agreement)
    for agreement in (0.5, 0.3, 1.1, float("nan")):
        with pytest.raises(UserError, match="out of range"):
            flip_rate(agreement)


@pytest.mark.parametrize("agreement", [0.6, 0.75, 0.9])
def test_listeners_of_one_taste_agree_as_the_dial_says(agreement: float) -> None:
    population = listeners.users(40, seed=1, agreement=agreement)
    facts, match = various(100)
    # One taste: everyone has the first listener's utilities.
    utility = np.tile(population.utility(facts, match)[:1], (40, 1))
    found = realised_agreement(population, utility, np.random.default_rng(2), comparisons=40_000)
    assert found["same_taste"] > 0.99
    assert found["agreement"] == pytest.approx(agreement, abs=0.012)


@pytest.mark.parametrize(("make", "dial"), [(listeners.users, 0.60), (listeners.raters, 0.75)])
def test_realised_agreement_is_near_the_dial(make: type, dial: float) -> None:
    population = make(50, seed=0)
    found = realised_agreement(population, population.utility(*various(200)), np.random.default_rng(0))
    assert found["dial"] == dial and found["kind"] == "simulated"
    assert found["agreement_given_same_taste"] == pytest.approx(dial, abs=0.02)
    assert dial - 0.08 < found["agreement"] < dial, "different tastes make listeners agree less than the dial says"
    assert found["same_taste"] < 1


@pytest.mark.parametrize("difference", [1.0, -0.2])
def test_single_listeners_flip_at_their_rate(difference: float) -> None:
    population = listeners.raters(30, seed=0)
    first = np.where(np.random.default_rng(1).random(60_000) < 0.5, "a", "b")
    wrong = decided(population, difference, 60_000, first) == ("b" if difference > 0 else "a")
    assert wrong.mean() == pytest.approx(flip_rate(0.75), abs=0.005)


def test_position_bias() -> None:
    population = listeners.users(200, seed=0)
    answers = {first: decided(population, 1.0, 60_000, first) for first in ("a", "b")}
    p, bias = flip_rate(0.6), population.first_bias.mean()
    assert bias == pytest.approx(0.08, abs=0.02)
    # 2p of the answers are guesses, and a guess goes to the first clip with one half plus the bias.
    assert (answers["a"] == "a").mean() == pytest.approx(1 - 2 * p * (0.5 - bias), abs=0.01)
    assert (answers["b"] == "a").mean() == pytest.approx(1 - 2 * p * (0.5 + bias), abs=0.01)


def test_no_difference_is_a_tie_but_for_lapses() -> None:
    population = listeners.users(100, seed=0)
    answers = decided(population, listeners.JUST_NOTICEABLE / 2, 50_000, "a")
    assert (answers != "tie").mean() == pytest.approx(population.lapses.mean(), abs=0.004)
    assert not (decided(population, 2 * listeners.JUST_NOTICEABLE, 1_000, "a") == "tie").any()
    reliable = listeners.users(10, seed=0, agreement=1.0)
    assert (decided(reliable, 0.0, 1_000, "b") == "tie").all()
    assert (decided(reliable, 1.0, 1_000, "b") == "a").all()


def test_guessing_is_spread_but_its_mean_is_the_dials() -> None:
    for seed in range(3):
        population = listeners.raters(7, seed=seed)
        assert population.guesses.mean() == pytest.approx(2 * flip_rate(0.75))
        assert population.guesses.std() > 0.02
        assert (population.lapses <= population.guesses).all()


def test_populations_differ_and_seeds_repeat() -> None:
    facts, match = various(50)
    users, raters = listeners.users(30, 0), listeners.raters(30, 0)
    np.testing.assert_array_equal(users.utility(facts, match), listeners.users(30, 0).utility(facts, match))
    assert not np.allclose(users.weights, listeners.users(30, 1).weights)
    assert not np.allclose(users.ideals, raters.ideals)
    means = [population.weights.mean(axis=0) for population in (users, raters, listeners.users(30, 1))]
    assert np.abs(means[0] - means[1]).max() > 2 * np.abs(means[0] - means[2]).max()
    ids = {rater.id for population in (users, raters) for rater in population.raters()}
    assert len(ids) == 60 and all(identifier.startswith("simulated/") for identifier in ids)
    assert {rater.kind for rater in users.raters()} == {"simulated"}


def test_answers_repeat_for_a_seed() -> None:
    population = listeners.users(5, 0)
    who = np.arange(5)
    for answer in (
        lambda rng: population.prefer(who, 1.0, 0.9, rng, "a"),
        lambda rng: population.rate(who, 0.3, rng),
        lambda rng: np.stack(population.rate_side_by_side(who, 1.0, 0.0, rng, "b")),
    ):
        np.testing.assert_array_equal(answer(np.random.default_rng(7)), answer(np.random.default_rng(7)))


@pytest.mark.parametrize("fact", sorted(WORSE))
@pytest.mark.parametrize("make", [listeners.users, listeners.raters])
def test_a_planted_defect_is_disliked(make: type, fact: str) -> None:
    population = make(60, seed=3)
    utility = population.utility([USUAL, replace(USUAL, **{fact: WORSE[fact]})], [0.5, 0.5])
    assert (utility[:, 0] > utility[:, 1]).mean() > 0.9
    technical = {"noise_floor_db", "high_noise_share", "rolloff_hz", "silence_share", "clipped_share"}
    quality = population.quality([USUAL, replace(USUAL, **{fact: WORSE[fact]})])
    assert (quality[:, 0] > quality[:, 1]).mean() > 0.9 if fact in technical else (quality[:, 0] == quality[:, 1]).all()


def test_a_planted_difference_wins_votes() -> None:
    population = listeners.raters(40, 0)
    utility = population.utility([USUAL, replace(USUAL, steadiness=0.1, key_clarity=0.5)], [0.9, 0.2])
    who = np.repeat(np.arange(40), 50)
    first = np.where(np.random.default_rng(0).random(who.size) < 0.5, "a", "b")
    answers = population.prefer(who, utility[who, 0], utility[who, 1], np.random.default_rng(1), first)
    assert (answers == "a").mean() == pytest.approx(1 - flip_rate(0.75), abs=0.03)


def test_listeners_like_what_matches_the_prompt() -> None:
    utility = listeners.users(50, 0).utility([USUAL] * 3, [0.1, 0.5, 0.9])
    assert (np.diff(utility.mean(axis=0)) > 0.2).all()
    for match in ([0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, float("nan")]):
        with pytest.raises(UserError, match="prompt matches"):
            listeners.users(2, 0).utility([USUAL] * 3, match)


def test_tastes_have_ideals() -> None:
    population = listeners.users(200, 0)
    tempo = [replace(USUAL, tempo=USUAL.tempo * factor) for factor in (0.7, 1.4)]
    utility = population.utility(tempo, [0.5, 0.5])
    faster = population.ideals[:, 0] > 0.5
    slower = population.ideals[:, 0] < -0.5
    assert (utility[faster, 1] > utility[faster, 0]).mean() > 0.9
    assert (utility[slower, 0] > utility[slower, 1]).mean() > 0.9


def test_noise_and_silence_are_worse_than_music() -> None:
    noise = measure(0.1 * np.random.default_rng(0).standard_normal(RATE * 3), RATE)
    silence = measure(np.zeros(RATE * 3), RATE)
    for population in (listeners.users(50, 0), listeners.raters(50, 0)):
        mean = population.utility([USUAL, noise, silence], [0.5, 0.5, 0.5]).mean(axis=0)
        assert mean[0] > -0.5 and mean[1] < mean[0] - 2.5 and mean[2] < mean[0] - 2.5
        rng = np.random.default_rng(0)
        quality = population.quality([USUAL, noise, silence])
        rated = np.mean([population.rate(i, quality[i], rng) for i in range(50)], axis=0)
        assert rated[0] > 3.5 and rated[1] < 2.5 and rated[2] < 2.5


def test_ratings_follow_the_utility() -> None:
    population = replace(listeners.raters(1, 0), offsets=np.zeros(1))
    rng = np.random.default_rng(0)
    utility = np.full(40_000, -1.0)
    ratings = population.rate(0, utility, rng)
    # A latent of -1 with noise tan(pi p), cut at -2.5, -1.5, -0.5 and 0.5.
    noise = np.tan(np.pi * flip_rate(0.75))
    expected = np.diff(norm.cdf([-np.inf, -1.5, -0.5, 0.5, 1.5, np.inf], scale=noise))
    np.testing.assert_allclose(np.bincount(ratings, minlength=6)[1:] / ratings.size, expected, atol=0.01)
    assert population.rate(0, -100.0, rng) == 1 and population.rate(0, 100.0, rng) == 5
    generous = replace(population, offsets=np.ones(1))
    assert generous.rate(0, utility, rng).mean() > ratings.mean() + 0.5


@pytest.mark.parametrize("agreement", [0.6, 0.75])
def test_rating_noise_disorders_as_the_dial_says(agreement: float) -> None:
    p = flip_rate(agreement)
    rng = np.random.default_rng(0)
    utility = rng.standard_normal((2, 200_000))
    noisy = utility + np.tan(np.pi * p) * rng.standard_normal(utility.shape)
    assert ((utility[0] > utility[1]) != (noisy[0] > noisy[1])).mean() == pytest.approx(p, abs=0.004)


def test_side_by_side_ratings_differ_the_wrong_way_at_the_flip_rate() -> None:
    population = listeners.raters(20, 0)
    rng = np.random.default_rng(0)
    who = rng.integers(0, 20, 60_000)
    first = np.where(rng.random(who.size) < 0.5, "a", "b")
    a, b = population.rate_side_by_side(who, 0.8, 0.0, rng, first)
    assert ((a >= 1) & (a <= 5) & (b >= 1) & (b <= 5)).all()
    differ = a != b
    assert 0.5 < differ.mean() < 1
    assert (a < b)[differ].mean() == pytest.approx(flip_rate(0.75), abs=0.01)
    wider = population.rate_side_by_side(who, 2.0, 0.0, rng, first)
    assert (wider[0] != wider[1]).mean() > differ.mean()


def test_populations_that_cannot_be() -> None:
    with pytest.raises(UserError, match="at least 1"):
        listeners.users(0, 0)
    with pytest.raises(UserError, match="out of range"):
        listeners.raters(3, 0, agreement=0.4)


def test_standards_are_the_median_and_robust_spread(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [level * rng.standard_normal(RATE // 2) for level in np.linspace(0.05, 0.2, 21)]
    found = standards.compute(clips, RATE, "noise", seed=4)
    values = standards.measures(as_array([measure(clip, RATE) for clip in clips]))
    floor = values[:, standards.MEASURES.index("noise_floor")]
    assert found.centre["noise_floor"] == pytest.approx(np.median(floor), abs=1e-3)
    assert found.scale["noise_floor"] == 3.0, "the spread is below what anyone hears"
    standards.write(found, tmp_path / "standards.json")
    assert standards.Standards(**json.loads((tmp_path / "standards.json").read_text())) == found
    standardised = found.standardise(values)
    assert np.abs(np.median(standardised, axis=0)).max() < 0.01
    with pytest.raises(UserError, match="at least 20"):
        standards.compute(clips[:5], RATE, "noise", seed=0)


def test_the_shipped_standards_come_from_real_clips() -> None:
    shipped = standards.load()
    assert shipped.clips >= 500
    assert tuple(shipped.centre) == tuple(shipped.scale) == standards.MEASURES


def test_every_criterion_has_a_weight() -> None:
    assert tuple(taste.USERS) == tuple(taste.RATERS) == taste.CRITERIA
    assert set(taste.TECHNICAL) | set(taste.FITS) < set(taste.CRITERIA)
    assert set(taste.FITS.values()) < set(standards.MEASURES)


def test_the_documented_weights_are_the_real_ones() -> None:
    page = (Path(__file__).parents[2] / "docs" / "listeners.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    documented = {name.strip("`"): (float(users), float(raters)) for name, _, users, raters in rows}
    assert documented == {name: (taste.USERS[name], taste.RATERS[name]) for name in taste.CRITERIA}
