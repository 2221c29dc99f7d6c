from __future__ import annotations

from typing import Any

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from musicrl.audio.facts import NUMBERS, as_array, measure, measure_many
from musicrl.errors import UserError

RATE = 24_000
Audio = NDArray[np.float64]


def clicks(tempo: float, seconds: float = 5.0) -> Audio:
    audio = np.zeros(round(RATE * seconds))
    click = 0.5 * np.random.default_rng(0).standard_normal(600) * np.exp(-np.arange(600) / 100)
    for start in np.arange(0, audio.size - 600, 60 / tempo * RATE):
        audio[round(start) : round(start) + 600] += click
    return audio


def note(pitch: int, seconds: float, partials: int = 6) -> Audio:
    time = np.arange(round(RATE * seconds)) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return np.exp(-3 * time) * sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, partials + 1))


def chords(root: int = 60, seconds: float = 6.0, minor: bool = False) -> Audio:
    third = 3 if minor else 4
    # I IV V I; in minor i iv V i.
    progression = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    bars = [sum(note(root + tone, 0.5) for tone in progression[i % 4]) for i in range(round(2 * seconds))]
    return 0.1 * np.concatenate(bars)


def noise(seconds: float = 5.0, level: float = 0.1) -> Audio:
    return level * np.random.default_rng(1).standard_normal(round(RATE * seconds))


@pytest.mark.parametrize("tempo", [70, 90, 100, 120, 133, 150, 180])
def test_tempo_of_a_click_track(tempo: float) -> None:
    facts = measure(clicks(tempo), RATE)
    assert facts.tempo == pytest.approx(tempo, rel=0.02)
    assert facts.steadiness > 0.8
    assert facts.onset_rate == pytest.approx(tempo / 60, abs=0.41)


def test_an_irregular_rhythm_is_less_steady() -> None:
    audio = np.zeros(RATE * 5)
    for start in np.random.default_rng(3).uniform(0, audio.size - 600, 10).astype(int):
        audio[start : start + 600] += clicks(60, 1.0)[:600]
    assert measure(audio, RATE).steadiness < 0.6 < measure(clicks(120), RATE).steadiness


@pytest.mark.parametrize(
    ("root", "minor", "key", "mode"),
    [(60, False, "C", "major"), (57, True, "A", "minor"), (66, False, "F#", "major"), (62, True, "D", "minor")],
)
def test_key_of_a_cadence(root: int, minor: bool, key: str, mode: str) -> None:
    facts = measure(chords(root, minor=minor), RATE)
    assert (facts.key, facts.mode) == (key, mode)
    assert facts.key_clarity > 0.85
    assert facts.key_clarity > measure(noise(), RATE).key_clarity + 0.2


def test_noise() -> None:
    facts, music = measure(noise(), RATE), measure(chords(), RATE)
    # The spectrum of white noise has exponential powers: geometric over arithmetic mean is exp(-0.5772).
    assert facts.flatness == pytest.approx(0.561, abs=0.02)
    assert facts.noise_share > 0.8 and music.noise_share < 0.1
    assert facts.high_noise_share == pytest.approx(8 / 12 * facts.noise_share, rel=0.05)
    assert facts.noise_floor_db > -6 and music.noise_floor_db < -30
    assert facts.centroid_hz == pytest.approx(6_000, rel=0.02)
    assert facts.bandwidth_hz == pytest.approx(12_000 / np.sqrt(12), rel=0.02)
    assert facts.rolloff_hz == pytest.approx(11_880, rel=0.01)
    assert facts.low_ratio == pytest.approx(250 / 12_000, rel=0.1)
    assert facts.steadiness < 0.3 and facts.onset_rate < 1


def test_noise_under_music_is_found() -> None:
    floors = [measure(chords() + noise(6.0, level), RATE).noise_floor_db for level in (0.0, 0.003, 0.01, 0.03)]
    assert floors == sorted(floors)
    # Per tenfold level 20 dB, up to the music that noise leaves above itself.
    assert floors[3] - floors[1] == pytest.approx(20, abs=2)


def test_a_tone() -> None:
    facts = measure(0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE * 3) / RATE), RATE)
    assert facts.centroid_hz == pytest.approx(440, rel=0.01)
    assert facts.peak_db == pytest.approx(-6.02, abs=0.01)
    assert (facts.roughness, facts.tempo, facts.steadiness, facts.onset_rate) == (0, 0, 0, 0)


def test_roughness_is_greatest_within_a_critical_band() -> None:
    phase = 2 * np.pi * 440 * np.arange(RATE * 2) / RATE
    intervals = [0.2 * np.sin(phase) + 0.2 * np.sin(phase * 2 ** (semitones / 12)) for semitones in (1.5, 4, 12)]
    roughness = [measure(audio, RATE).roughness for audio in intervals]
    assert roughness[0] > 2 * roughness[1] > 4 * roughness[2]


def test_silence() -> None:
    facts = measure(np.zeros(RATE), RATE)
    assert (facts.silence_share, facts.peak_db, facts.loudness, facts.tempo, facts.centroid_hz) == (1, -120, -120, 0, 0)
    half = measure(np.concatenate([chords(seconds=3), np.zeros(3 * RATE)]), RATE)
    assert half.silence_share == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("turned_down", [1.0, 0.3])
def test_clipping(turned_down: float) -> None:
    loud = 6 * chords()
    share = (np.abs(loud) > 1).mean()
    assert measure(turned_down * np.clip(loud, -1, 1), RATE).clipped_share == pytest.approx(share, rel=0.15)
    assert measure(loud / np.abs(loud).max() * 0.9, RATE).clipped_share == 0


@pytest.mark.parametrize("audio", [chords(), noise(), clicks(120)])
def test_loudness_agrees_with_pyloudnorm(audio: Audio) -> None:
    expected = pyloudnorm.Meter(RATE).integrated_loudness(audio)
    assert measure(audio, RATE).loudness == pytest.approx(expected, abs=0.5)


def test_level_changes_the_level_only() -> None:
    loud, soft = measure(chords(), RATE), measure(0.1 * chords(), RATE)
    assert soft.peak_db == pytest.approx(loud.peak_db - 20, abs=1e-3)
    assert soft.loudness == pytest.approx(loud.loudness - 20, abs=0.01)
    for name in set(NUMBERS) - {"peak_db", "loudness", "silence_share"}:
        assert getattr(soft, name) == pytest.approx(getattr(loud, name), rel=1e-3, abs=1e-4), name


def test_the_sample_rate_changes_little() -> None:
    from scipy.signal import resample_poly

    low, high = measure(chords(), RATE), measure(resample_poly(chords(), 2, 1), 2 * RATE)
    assert (low.key, low.mode) == (high.key, high.mode)
    assert high.tempo == pytest.approx(low.tempo, rel=0.02)
    assert high.loudness == pytest.approx(low.loudness, abs=0.1)


@given(npst.arrays(np.float32, st.integers(1, 6_000), elements=st.floats(-2, 2, width=32)))
@settings(max_examples=30)
def test_every_fact_is_finite_and_in_range(audio: NDArray[np.float32]) -> None:
    facts = measure(audio, RATE)
    assert np.isfinite(as_array([facts])).all()
    for name in (name for name in NUMBERS if name.endswith(("share", "ratio", "flatness", "steadiness"))):
        assert 0 <= getattr(facts, name) <= 1 + 1e-5, name
    assert -1 <= facts.key_clarity <= 1 + 1e-9
    assert facts.tempo == 0 or 39 <= facts.tempo <= 241


@pytest.mark.parametrize("audio", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.inf])])
def test_what_cannot_be_measured(audio: NDArray[Any]) -> None:
    with pytest.raises(UserError, match="cannot measure"):
        measure(audio, RATE)


def test_many_clips_are_measured_as_one_by_one() -> None:
    clips = [chords(seconds=1), noise(0.5), clicks(120, 1.0)]
    facts = measure_many(clips, RATE, workers=2)
    assert facts == [measure(clip, RATE) for clip in clips]
    table = as_array(facts)
    assert table.shape == (3, len(NUMBERS))
    assert table[1, NUMBERS.index("flatness")] == facts[1].flatness
    assert as_array([]).shape == (0, len(NUMBERS))
