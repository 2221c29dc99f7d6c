"""Clips made from an arrangement: what plays when, and attributes that agree with the notes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from musicrl.corpus.arrange import BEATS, Arrangement, Track, fit_melody, fits
from musicrl.corpus.instruments import DRUMS, LEADS, NAME_OF
from musicrl.corpus.styles import STYLES, Groove
from musicrl.corpus.tune import Key, Note, Tune
from musicrl.corpus.variants import CLIP_SECONDS, bars_needed, density_class, pick_lead, tempo_class, vary

QUARTERS = tuple(Note(float(i), 1.0, 60 + i % 5) for i in range(64))
TUNE = Tune("t/1", "Test", (4, 4), Key(0, "major"), 16, QUARTERS)


def piece(style: str) -> Arrangement:
    count = bars_needed(STYLES[style], 4)
    beats = np.arange(count * 4) / 4
    melody = np.stack([beats, np.full(len(beats), 0.25), 60 + np.arange(len(beats)) % 5], 1)
    part = np.insert(melody, 3, 80.0, axis=1)
    tracks = (
        Track("bass", 32, part - [0, 0, 24, 0]),
        Track("chords", 0, part),
        Track("drums", DRUMS, part - [0, 0, 22, 0]),
    )
    return Arrangement(TUNE, STYLES[style], "Test", "4/4", Key(0, "major"), count, melody, tracks, ())


@given(st.sampled_from(sorted(STYLES)), st.integers(0, 2**32))
def test_attributes_agree_with_the_notes(style: str, seed: int):
    rng = np.random.default_rng(seed)
    lead = pick_lead(STYLES[style], rng, set())
    variant = vary(piece(style), lead, rng)
    attributes, notes = variant.attributes, variant.notes
    heard = notes[notes[:, 0] < CLIP_SECONDS]
    low, high = STYLES[style].tempo
    assert low <= attributes["tempo_bpm"] <= high
    assert attributes["drums"] == bool((heard[:, 3] == DRUMS).any()) == ("drums" in attributes["instruments"])
    assert attributes["instruments"][0] == attributes["lead"] == lead.name
    assert {NAME_OF[p] for p in attributes["programs"]} == set(attributes["instruments"])
    assert attributes["tempo_class"] == tempo_class(attributes["tempo_bpm"])
    assert (attributes["style"] == "solo") == bool(variant.is_lead.all())
    assert set(notes[variant.is_lead, 3]) <= set(lead.programs)
    assert notes[:, 0].min() >= 0
    assert notes[:, 0].min() < 0.1
    assert heard[:, 0].max() > CLIP_SECONDS - 60 / attributes["tempo_bpm"] * 1.2
    # The lead is never doubled by its own sound, or nobody could tell it apart.
    if style != "chorale":
        others = {NAME_OF[int(p)] for p in notes[~variant.is_lead, 3]} - {"double bass", "cello"}
        assert lead.name not in others


@given(st.integers(0, 2**32))
def test_beats_are_where_the_tempo_says(seed: int):
    variant = vary(piece("rock"), LEADS["flute"], np.random.default_rng(seed))
    drums = variant.notes[variant.notes[:, 3] == DRUMS, 0]
    if len(drums):
        np.testing.assert_allclose(np.diff(drums), 60 / variant.attributes["tempo_bpm"], atol=1e-4)


def test_melody_moves_to_the_octave_of_its_instrument():
    for name, low in (("piccolo", 74), ("bassoon", 41)):
        variant = vary(piece("folk"), LEADS[name], np.random.default_rng(3))
        pitches = variant.notes[variant.is_lead, 2]
        assert pitches.min() >= low
        assert pitches.max() <= LEADS[name].high


def test_classes_at_their_borders():
    assert [tempo_class(b) for b in (84, 85, 124, 125)] == ["slow", "medium", "medium", "fast"]
    assert [density_class(d) for d in (3.1, 3.2, 7.4, 7.5)] == ["sparse", "moderate", "moderate", "busy"]


def test_metres_fit_as_they_are_or_two_in_one():
    jig = Tune("t/2", "Jig", (6, 8), Key(0, "major"), 16, tuple(Note(i * 0.5, 0.5, 60) for i in range(96)))
    assert fits(jig, STYLES["waltz"], Groove("f", "g", "3/4", 3))
    assert not fits(jig, STYLES["rock"], Groove("f", "g", "4/4", 4))
    assert fits(jig, STYLES["swing"], Groove("f", "g", "4/4", 4))
    waltz, bars = fit_melody(jig, STYLES["waltz"], "3/4")
    assert bars == 32
    assert [round(n.onset * 3, 6) for n in waltz[:4]] == [0, 1, 2, 3]
    swing, bars = fit_melody(jig, STYLES["swing"], "4/4")
    assert bars == 8
    assert [round(n.onset * 12, 6) for n in swing[:4]] == [0, 1, 2, 3]


def test_even_eighths_are_swung_two_to_one():
    eighths = Tune("t/3", "E", (4, 4), Key(0, "major"), 8, tuple(Note(i * 0.5, 0.5, 60) for i in range(64)))
    swung, _ = fit_melody(eighths, STYLES["swing"], "4/4")
    straight, _ = fit_melody(eighths, STYLES["rock"], "4/4")
    assert [round(n.onset * BEATS["4/4"], 4) for n in swung[:4]] == [0, 0.6667, 1, 1.6667]
    assert [n.onset * BEATS["4/4"] for n in straight[:4]] == [0, 0.5, 1, 1.5]


def test_pickup_is_left_to_the_bar_before_the_repeat():
    notes = (Note(3.0, 1.0, 72), *(Note(4 + n.onset, 1.0, n.pitch) for n in QUARTERS[:56]))
    tune = Tune("t/4", "P", (4, 4), Key(0, "major"), 15, notes)
    melody, bars = fit_melody(tune, STYLES["rock"], "4/4")
    assert bars == 14
    assert melody[0] == Note(0.0, 0.25, 60)
