"""Chords for a melody: dynamic programming over the diatonic triads of its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from musicrl.corpus.styles import Harmony
from musicrl.corpus.tune import NOTE_NAMES, Key, Note


class Chord(NamedTuple):
    """A chord: root pitch class, `major` or `minor` triad, and its degree 0..6 in the key."""

    root: int
    minor: bool
    degree: int

    @property
    def tones(self) -> tuple[int, int, int]:
        """Pitch classes of root, third and fifth."""
        return (self.root, (self.root + (3 if self.minor else 4)) % 12, (self.root + 7) % 12)

    def symbol(self, harmony: Harmony, minor_key: bool) -> str:
        """Return the chord symbol, with the sevenths `harmony` asks for."""
        name = NOTE_NAMES[self.root] + ("m" if self.minor else "")
        if harmony == "blues":
            return name + "7"
        if harmony == "jazz":
            if self.minor:
                return name + "7"
            dominant = self.degree in ((4, 6) if minor_key else (4,))
            return name + ("7" if dominant else "M7")
        if harmony == "dominant" and self.degree == 4 and not self.minor:
            return name + "7"
        return name


_PRIOR_MAJOR = (0.30, -0.05, -0.45, 0.18, 0.22, -0.10, -0.5)
_PRIOR_MINOR = (0.30, -0.50, 0.00, 0.12, 0.22, 0.00, 0.08)
_MOVES = {
    (4, 0): 0.5,
    (1, 4): 0.4,
    (3, 4): 0.3,
    (3, 0): 0.25,
    (5, 1): 0.2,
    (5, 3): 0.25,
    (2, 5): 0.2,
    (0, 3): 0.15,
    (0, 4): 0.1,
    (6, 0): 0.3,
    (6, 2): 0.2,
    (5, 4): 0.15,
    (5, 6): 0.2,
    (4, 3): -0.4,
    (4, 1): -0.5,
    (4, 2): -0.4,
    (3, 2): -0.2,
}


def chords_of(key: Key) -> list[Chord]:
    """Return the major and minor triads on the degrees of a key; a minor key's fifth degree gets a major third too."""
    scale = key.scale
    chords: list[Chord] = []
    for degree, root in enumerate(scale):
        third, fifth = scale[(degree + 2) % 7], scale[(degree + 4) % 7]
        if (fifth - root) % 12 == 7:
            chords.append(Chord(root, (third - root) % 12 == 3, degree))
    fifth = (key.tonic + 7) % 12
    if key.minor and not any(c.root == fifth and not c.minor for c in chords):
        chords.append(Chord(fifth, False, 4))
    return chords


def harmonise(notes: Sequence[Note], bars: int, slots: int, beats: int, key: Key) -> list[Chord]:
    """Choose one chord for each slot of a melody by the Viterbi algorithm.

    A chord is paid for the melody time its tones cover, most on strong beats; for moving as functional harmony moves
    (V to I, ii to V, IV to V); for staying within a bar; for closing every eighth bar on the tonic after a dominant.

    Args:
        notes: melody; onsets and durations in bars.
        bars: number of bars.
        slots: chord slots in a bar, 1 or 2.
        beats: beats in a bar, for metrical weight.
        key: of the melody.

    Returns:
        `bars * slots` chords.
    """
    chords = chords_of(key)
    weights = _slot_weights(notes, bars, slots, beats)
    fit = weights @ _affinity(chords).T / np.maximum(weights.sum(1, keepdims=True), 1e-6)
    prior = np.array([(_PRIOR_MINOR if key.minor else _PRIOR_MAJOR)[c.degree] for c in chords])
    score = 2.2 * fit + prior
    tonic = np.array([c.degree == 0 for c in chords])
    dominant = np.array([c.degree == 4 and not (key.minor and c.minor) for c in chords])
    for bar in range(bars):
        first, last = bar * slots, bar * slots + slots - 1
        if bar % 8 == 0:
            score[first, tonic] += 0.4
        if bar % 8 == 7 or bar == bars - 1:
            score[last, tonic] += 0.9
            if slots == 2:
                score[first, dominant] += 0.3
        if bar % 8 == 6 and slots == 1:
            score[last, dominant] += 0.4
        if bar % 8 == 3:
            score[last, tonic | dominant] += 0.25
    moves = np.array([[_MOVES.get((a.degree, b.degree), -0.05) for b in chords] for a in chords])
    within = moves - 0.45
    np.fill_diagonal(within, 0.25)
    across = moves.copy()
    np.fill_diagonal(across, -0.1)
    best = score[0].copy()
    back = np.zeros((len(score), len(chords)), np.int64)
    for slot in range(1, len(score)):
        total = best[:, None] + (within if slot % slots else across)
        back[slot] = total.argmax(0)
        best = total.max(0) + score[slot]
    path = [int(best.argmax())]
    for slot in range(len(score) - 1, 0, -1):
        path.append(int(back[slot, path[-1]]))
    return [chords[i] for i in reversed(path)]


def _slot_weights(notes: Sequence[Note], bars: int, slots: int, beats: int) -> np.ndarray:
    weights = np.zeros((bars * slots, 12))
    for note in notes:
        start, end = note.onset * slots, (note.onset + note.duration) * slots
        beat = note.onset * beats
        accent = 1.0 + 0.4 * (abs(beat - round(beat)) < 1e-3) + 0.5 * (abs(start - round(start)) < 1e-3)
        for slot in range(int(start + 1e-9), min(int(np.ceil(end - 1e-9)), bars * slots)):
            weights[slot, note.pitch % 12] += accent * (min(end, slot + 1) - max(start, slot))
    return weights


def _affinity(chords: list[Chord]) -> np.ndarray:
    table = np.full((len(chords), 12), -0.55)
    for row, chord in zip(table, chords, strict=True):
        for tone in chord.tones:
            row[(tone + 1) % 12] = -0.9
        if chord.degree == 4:
            row[(chord.root + 10) % 12] = 0.2
        for tone, worth in zip(chord.tones, (1.0, 1.0, 0.85), strict=True):
            row[tone] = worth
    return table
