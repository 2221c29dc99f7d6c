"""What the corpus knows of a tune: its melody in quarters, metre, key."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

_IONIAN = (0, 2, 4, 5, 7, 9, 11)
_DEGREE = {"major": 0, "dorian": 1, "phrygian": 2, "lydian": 3, "mixolydian": 4, "minor": 5, "locrian": 6}
_MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class TuneError(Exception):
    """A tune that cannot be used: `name` and the `reason` it is counted under."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # as given, so that workers can send it back
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Note(NamedTuple):
    """A melody note: onset and duration in quarters (or bars, where a docstring says so), MIDI pitch."""

    onset: float
    duration: float
    pitch: int


@dataclass(frozen=True)
class Key:
    """A tonic pitch class 0..11 and one of the seven church modes, `major` and `minor` for Ionian and Aeolian."""

    tonic: int
    mode: str

    @property
    def scale(self) -> tuple[int, ...]:
        """The seven pitch classes, from the tonic up."""
        degree = _DEGREE[self.mode]
        steps = [(_IONIAN[(degree + i) % 7] - _IONIAN[degree]) % 12 for i in range(7)]
        return tuple((self.tonic + step) % 12 for step in steps)

    @property
    def minor(self) -> bool:
        """Whether the third above the tonic is a minor one: what a listener hears as a minor key."""
        return (self.tonic + 3) % 12 in self.scale

    def transposed(self, semitones: int) -> Key:
        """Return the same mode on another tonic."""
        return Key((self.tonic + semitones) % 12, self.mode)

    def __str__(self) -> str:
        return f"{NOTE_NAMES[self.tonic]} {'minor' if self.minor else 'major'}"


@dataclass(frozen=True)
class Tune:
    """One tune, played once through.

    Attributes:
        id: book and number.
        title: as printed in the book.
        meter: numerator and denominator.
        key: tonic and mode.
        bars: number of bars; bar 0 holds the pickup, right-aligned, where there is one.
        notes: melody, onsets in quarters from the start of bar 0.
        voices: lower voices (chorales only), top down, in the same time.
    """

    id: str
    title: str
    meter: tuple[int, int]
    key: Key
    bars: int
    notes: tuple[Note, ...]
    voices: tuple[tuple[Note, ...], ...] = ()

    @property
    def bar_quarters(self) -> float:
        """Length of a bar in quarters."""
        return 4 * self.meter[0] / self.meter[1]


def heard_key(notes: list[Note], named: Key) -> Key:
    """Return the key a listener hears, where it plainly is not the one the book names.

    Books often give only the signature. Candidates are the modes of the named signature whose tonic is the tune's last
    note or the named tonic; the duration profile is compared with the Krumhansl–Kessler profiles.
    """
    weights = [0.0] * 12
    for note in notes:
        weights[note.pitch % 12] += note.duration
    last = notes[-1].pitch % 12
    candidates = [named]
    if last != named.tonic and last in named.scale:
        for mode in ("major", "minor", "dorian", "mixolydian"):
            if set(Key(last, mode).scale) == set(named.scale):
                candidates.append(Key(last, mode))

    def fit(key: Key) -> float:
        profile = _MINOR_PROFILE if key.minor else _MAJOR_PROFILE
        rolled = [profile[(pc - key.tonic) % 12] for pc in range(12)]
        return _correlation(weights, rolled)

    return max(candidates, key=fit)


def _correlation(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    bottom = (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5
    return top / bottom if bottom else 0.0


def assemble(
    name: str, title: str, meter: tuple[int, int], key: Key, raw: list[tuple[list[Note], Fraction, bool]]
) -> Tune:
    """Join the bars of a book into a steady row of full bars.

    Args:
        name: id of the tune.
        title: its title.
        meter: numerator and denominator.
        key: as the book names it.
        raw: per bar its notes (onsets in quarters from the bar's start), its length in quarters, and whether a double
            bar or repeat sign ends it: there the bar's end and the next pickup are two halves of one bar.

    Returns:
        The tune with every bar of full length.

    Raises:
        TuneError: a bar is longer than the metre, more than a sixth of the bars are short, or there is too little.
    """
    length = Fraction(4 * meter[0], meter[1])
    bars: list[list[Note]] = []
    faults = 0
    carry: tuple[list[Note], Fraction] | None = None
    for index, (notes, filled, _) in enumerate(raw):
        if filled > length:
            raise TuneError(name, "bar too long")
        if carry is not None:
            before, used = carry
            if used + filled == length:
                bars.append(before + [Note(n.onset + float(used), n.duration, n.pitch) for n in notes])
                carry = None
                continue
            bars.append(before)
            faults += 1
            carry = None
        if filled == length:
            bars.append(notes)
        elif index == 0:
            bars.append([Note(n.onset + float(length - filled), n.duration, n.pitch) for n in notes])
        else:
            carry = (notes, filled)
    if carry is not None:
        bars.append(carry[0])
    if faults * 6 > len(bars):
        raise TuneError(name, "bars do not add up")
    quarters = float(length)
    flat = [Note(n.onset + i * quarters, n.duration, n.pitch) for i, bar in enumerate(bars) for n in bar]
    if len(bars) < 8 or len(flat) < 24:
        raise TuneError(name, "too short")
    if min(n.pitch for n in flat) < 43 or max(n.pitch for n in flat) > 103:
        raise TuneError(name, "out of range")
    return Tune(name, title, meter, heard_key(flat, key), len(bars), tuple(flat))
