"""Reading ABC: what is played when, in which key, and what is refused."""

from __future__ import annotations

import pytest

from musicrl.corpus.abc import read_book, read_key, read_tune
from musicrl.corpus.tune import Key, TuneError

HEAD = "X:1\nT:Test\nM:4/4\nL:1/8\nK:{key}\n"
FILLER = "CDEF GABc|" * 7


def tune_of(first_bar: str, key: str = "C"):
    return read_tune(HEAD.format(key=key) + first_bar + "|" + FILLER, "t/1")


def first(bar: str, count: int, key: str = "C") -> list[tuple[float, float, int]]:
    return [tuple(note) for note in tune_of(bar, key).notes[:count]]


def test_plain_eighths_and_octaves():
    assert first("C,CcC c'2 z2", 5) == [(0, 0.5, 48), (0.5, 0.5, 60), (1, 0.5, 72), (1.5, 0.5, 60), (2, 1, 84)]


def test_key_signature_accidentals_last_for_the_bar():
    notes = tune_of("F2 =F2 F2 ^c2|F8", "D").notes
    assert [n.pitch for n in notes[:5]] == [66, 65, 65, 73, 66]


def test_broken_rhythm_shifts_time_from_one_note_to_the_other():
    assert first("C>D E<F G4", 5) == [(0, 0.75, 60), (0.75, 0.25, 62), (1, 0.25, 64), (1.25, 0.75, 65), (2, 2, 67)]


def test_triplet_takes_the_time_of_two():
    onsets = [onset for onset, _, _ in first("(3CDE F2 G4", 5)]
    assert onsets == pytest.approx([0, 1 / 3, 2 / 3, 1, 2])


def test_tie_joins_equal_notes_and_slur_does_not():
    assert first("C4-C2 D2-", 2) == [(0, 3, 60), (3, 1, 62)]
    assert [pitch for _, _, pitch in first("C4-D4", 2)] == [60, 62]


def test_key_may_change_within_a_tune():
    tune = read_tune(HEAD.format(key="C") + "FEFE FEFE|\nK:D\nFEFE FEFE|[K:F]BABA BABA|" + FILLER, "t/1")
    assert [n.pitch for n in tune.notes if n.onset % 4 == 0][:3] == [65, 66, 70]


def test_chord_keeps_its_top_note_and_ornaments_are_dropped():
    assert first('"Am"[CEG]4 {cde}!trill!~C4', 2) == [(0, 2, 67), (2, 2, 60)]


def test_second_ending_replaces_the_first():
    bars = "CDEF GABc|" * 7
    tune = read_tune(HEAD.format(key="C") + f"{bars}[1 C8:|[2 E8|{bars}", "t/1")
    assert tune.bars == 15
    assert 64 in [n.pitch for n in tune.notes if n.duration == 4]
    assert 60 not in [n.pitch for n in tune.notes if n.duration == 4]


def test_pickup_is_right_aligned_and_split_bars_are_joined():
    tune = read_tune(HEAD.format(key="C") + "G2|" + "C8|" * 3 + "C6:|\nG2|" + "CDEF GABc|" * 6, "t/1")
    assert tune.notes[0].onset == 3
    assert tune.bars == 11
    assert (tune.notes[5].onset, tune.notes[5].pitch) == (19, 67)


@pytest.mark.parametrize(
    ("text", "tonic", "mode"),
    [
        ("G", 7, "major"),
        ("F#m", 6, "minor"),
        ("Edor", 4, "dorian"),
        ("A Mix", 9, "mixolydian"),
        ("Bb maj", 10, "major"),
    ],
)
def test_keys(text: str, tonic: int, mode: str):
    assert read_key(text) == Key(tonic, mode)


def test_scale_of_a_mode():
    assert Key(2, "dorian").scale == (2, 4, 5, 7, 9, 11, 0)
    assert Key(2, "dorian").minor
    assert not Key(7, "mixolydian").minor


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("X:1\nM:4/4\nK:C\n" + "CDEF GABc d2|" * 8, "bar too long"),
        ("X:1\nM:4/4\nK:C\n" + "CDEF GABc|C2|D2|E2|" * 4, "bars do not add up"),
        ("X:1\nM:none\nK:C\n" + FILLER, "no metre or key"),
        ("X:1\nM:4/4\nK:C\n" + "CDEF GABc|" * 4, "too short"),
        ("X:1\nM:4/4\nK:C\n" + FILLER + "\nM:3/4\n" + FILLER, "metre changes"),
        ("X:1\nM:4/4\nK:C\nV:1\n" + FILLER, "several voices"),
    ],
)
def test_broken_tunes_are_refused_with_a_reason(text: str, reason: str):
    (found,) = read_book(text, "book")
    assert isinstance(found, TuneError)
    assert found.reason == reason
