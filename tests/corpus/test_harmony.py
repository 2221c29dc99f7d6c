"""Chords for melodies whose harmony any musician would agree on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musicrl.corpus.harmony import Chord, chords_of, harmonise
from musicrl.corpus.tune import Key, Note

C_MAJOR = Key(0, "major")


def melody(*bars: list[int]) -> list[Note]:
    return [Note(i + j / len(bar), 1 / len(bar), 60 + p) for i, bar in enumerate(bars) for j, p in enumerate(bar)]


def symbols(chords: list[Chord], minor: bool = False) -> list[str]:
    return [chord.symbol("plain", minor) for chord in chords]


def test_arpeggios_get_their_own_chord():
    tune = melody([0, 4, 7, 4], [5, 9, 12, 9], [7, 11, 14, 11], [0, 4, 7, 0])
    assert symbols(harmonise(tune, 4, 1, 4, C_MAJOR)) == ["C", "F", "G", "C"]


def test_minor_key_gets_a_major_dominant():
    tune = melody([9, 12, 16, 12], [2, 5, 9, 5], [4, 8, 11, 8], [9, 12, 16, 9])
    assert symbols(harmonise(tune, 4, 1, 4, Key(9, "minor")), True) == ["Am", "Dm", "E", "Am"]


def test_chord_may_change_in_the_middle_of_a_bar():
    tune = melody([0, 4, 7, 11], [0, 0, 7, 11], [0, 4, 7, 4], [0, 4, 0, 0])
    halves = [Note(0, 0.5, 60), Note(0, 0.5, 64), Note(0.5, 0.5, 67), Note(0.5, 0.5, 71), Note(0.5, 0.5, 74)]
    chords = symbols(harmonise([*halves, *[n for n in tune if n.onset >= 2]], 4, 2, 4, C_MAJOR))
    assert chords[:2] == ["C", "G"]
    assert chords[-1] == "C"


def test_sevenths_follow_the_style():
    dominant, tonic = Chord(7, False, 4), Chord(0, False, 0)
    assert dominant.symbol("dominant", False) == "G7"
    assert tonic.symbol("dominant", False) == "C"
    assert tonic.symbol("jazz", False) == "CM7"
    assert tonic.symbol("blues", False) == "C7"
    assert Chord(2, True, 1).symbol("jazz", False) == "Dm7"


@given(
    st.lists(st.lists(st.integers(0, 14), min_size=1, max_size=8), min_size=1, max_size=12),
    st.integers(0, 11),
    st.sampled_from(["major", "minor", "dorian", "mixolydian", "lydian", "phrygian"]),
    st.sampled_from([1, 2]),
)
def test_every_slot_gets_a_chord_of_the_key(bars: list[list[int]], tonic: int, mode: str, slots: int):
    key = Key(tonic, mode)
    chords = harmonise(melody(*bars), len(bars), slots, 4, key)
    assert len(chords) == len(bars) * slots
    assert set(chords) <= set(chords_of(key))
