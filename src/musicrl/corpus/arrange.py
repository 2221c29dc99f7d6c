"""From a tune to parts: the melody fitted to a groove's metre, harmonised, accompanied by the MMA program.

Everything here is in bars, so that tempo is decided later and one run of MMA serves several clips.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musicrl.corpus.harmony import harmonise
from musicrl.corpus.instruments import DRUMS
from musicrl.corpus.styles import Groove, Meter, Style
from musicrl.corpus.tune import Key, Note, Tune
from musicrl.errors import UserError

_TICKS_PER_QUARTER = 192
_FIT: dict[tuple[tuple[int, int], Meter], float] = {
    ((4, 4), "4/4"): 1,
    ((2, 4), "4/4"): 1,
    ((3, 4), "3/4"): 1,
    ((3, 8), "3/4"): 1,
    ((6, 8), "3/4"): 2,
    ((6, 8), "6/8"): 1,
    ((12, 8), "6/8"): 2,
}
_SWUNG_FIT: dict[tuple[tuple[int, int], Meter], float] = {
    ((6, 8), "4/4"): 0.5,
    ((12, 8), "4/4"): 1,
    ((9, 8), "3/4"): 1,
}
BEATS: dict[Meter, int] = {"4/4": 4, "3/4": 3, "6/8": 2}
"""Felt beats in a bar."""


class AccompanimentError(Exception):
    """MMA could not play a chord chart; the clip is counted as rejected."""


@dataclass(frozen=True)
class Track:
    """One accompanying part.

    Attributes:
        role: `drums`, `bass`, `chords`, `line` or `voice`.
        program: General MIDI program, `instruments.DRUMS` for percussion.
        notes: [n, 4] float64: onset and duration in bars, pitch, velocity.
    """

    role: str
    program: int
    notes: np.ndarray


@dataclass(frozen=True)
class Arrangement:
    """A stretch of a tune with its accompaniment, `bars` long; melody and tracks are in bars."""

    tune: Tune
    style: Style
    groove: str
    meter: Meter
    key: Key
    bars: int
    melody: np.ndarray
    tracks: tuple[Track, ...]
    chords: tuple[str, ...]


def fits(tune: Tune, style: Style, groove: Groove) -> bool:
    """Return whether the tune's metre can be played over the groove: as it is, or two bars in one and the like."""
    place = (tune.meter, groove.meter)
    return place in _FIT or (style.swing and place in _SWUNG_FIT)


def fit_melody(tune: Tune, style: Style, meter: Meter) -> tuple[list[Note], int]:
    """Lay a tune's melody out in bars of a groove.

    The pickup bar is left out (the bar before a repeat holds it again), even eighths are swung 2:1 where the style
    swings and the tune does not come in triplets.

    Returns:
        Notes with onset and duration in the groove's bars, and how many bars there are.
    """
    place = (tune.meter, meter)
    swung_source = place in _SWUNG_FIT
    factor = _SWUNG_FIT[place] if swung_source else _FIT[place]
    pickup = 1 if tune.notes and tune.notes[0].onset > 1e-6 and tune.notes[0].onset < tune.bar_quarters else 0
    bars = int((tune.bars - pickup) * factor)
    notes: list[Note] = []
    beats = BEATS[meter]
    swing = style.swing and not swung_source and meter != "6/8"
    for note in tune.notes:
        start = (note.onset / tune.bar_quarters - pickup) * factor
        end = start + note.duration / tune.bar_quarters * factor
        if start < -1e-6 or start >= bars:
            continue
        if swing:
            start, end = _swing(start * beats) / beats, _swing(end * beats) / beats
        notes.append(Note(start, end - start, note.pitch))
    return notes, bars


def _swing(beat: float) -> float:
    whole, part = divmod(beat, 1.0)
    return whole + (part * 4 / 3 if part <= 0.5 else 2 / 3 + (part - 0.5) * 2 / 3)


def _loop(notes: list[Note], bars: int, first: int, count: int) -> np.ndarray:
    rows = [
        (note.onset + lap * bars - first, note.duration, note.pitch)
        for lap in range((first + count) // bars + 1)
        for note in notes
        if first - 1e-6 <= note.onset + lap * bars < first + count - 1e-6
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


def arrange(
    tune: Tune, style: Style, groove: Groove, *, first: int, count: int, seed: int, workdir: Path
) -> Arrangement:
    """Harmonise a stretch of a tune and have MMA accompany it.

    Args:
        tune: what is played; it starts again where it ends.
        style: decides sevenths and swing.
        groove: MMA's accompaniment.
        first: bar of the tune the stretch starts at.
        count: bars in the stretch.
        seed: of MMA's own variations.
        workdir: folder for the chart and the MIDI file.

    Raises:
        UserError: the `mma` program is missing.
        AccompanimentError: it failed on the chart.
    """
    notes, bars = fit_melody(tune, style, groove.meter)
    slots = 1 if groove.meter == "3/4" else 2
    chords = harmonise(notes, bars, slots, BEATS[groove.meter], tune.key)
    row = [chords[(first * slots + i) % len(chords)] for i in range(count * slots)]
    symbols = [chord.symbol(style.harmony, tune.key.minor) for chord in row]
    midi = _run_mma(_chart(groove, symbols, slots, seed), workdir)
    return Arrangement(
        tune=tune,
        style=style,
        groove=groove.name,
        meter=groove.meter,
        key=tune.key,
        bars=count,
        melody=_loop(notes, bars, first, count),
        tracks=_tracks(midi, groove.quarters),
        chords=tuple(symbols),
    )


def chorale(tune: Tune, style: Style, *, first: int, count: int) -> Arrangement:
    """Return a stretch of a four-part chorale with its own lower voices as accompaniment."""
    meter: Meter = "3/4" if tune.meter == (3, 4) else "4/4"
    pickup = 1 if tune.notes[0].onset > 1e-6 and tune.notes[0].onset < tune.bar_quarters else 0
    bars = tune.bars - pickup
    parts: list[np.ndarray] = []
    for voice in (tune.notes, *tune.voices):
        placed = [Note(n.onset / tune.bar_quarters - pickup, n.duration / tune.bar_quarters, n.pitch) for n in voice]
        parts.append(_loop([n for n in placed if n.onset > -1e-6], bars, first, count))
    tracks = tuple(Track("voice", 19, np.insert(part, 3, 84.0, axis=1)) for part in parts[1:])
    return Arrangement(tune, style, "four voices", meter, tune.key, count, parts[0], tracks, ())


def _chart(groove: Groove, symbols: list[str], slots: int, seed: int) -> str:
    lines = ["Tempo 120", f"RndSeed {seed}", f"Use {groove.file}", f"Groove {groove.name}"]
    gap = " / " * (groove.quarters // 2 - 1) if slots == 2 else ""
    for bar in range(len(symbols) // slots):
        here = symbols[bar * slots : (bar + 1) * slots]
        same = len(set(here)) == 1
        lines.append(f"{bar + 1} {here[0]}" if same else f"{bar + 1} {here[0]} {gap} {here[1]}")
    return "\n".join(lines) + "\n"


def _run_mma(chart: str, workdir: Path) -> Path:
    source, target = workdir / "chart.mma", workdir / "chart.mid"
    source.write_text(chart, encoding="utf-8")
    target.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            ["mma", str(source), "-f", str(target)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    except FileNotFoundError:
        raise UserError("the accompaniment program mma is missing; install it, e.g. `apt-get install mma`") from None
    if done.returncode or not target.exists():
        reason = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no output"]
        raise AccompanimentError(reason[0])
    return target


def _role(name: str) -> str:
    head = name.split("-")[0].lower()
    if head.startswith(("bass", "walk")):
        return "bass"
    if head.startswith(("solo", "melody", "aria", "scale")):
        return "line"
    return "chords"


def _tracks(midi: Path, quarters: int) -> tuple[Track, ...]:
    import mido

    ticks = quarters * _TICKS_PER_QUARTER
    tracks: list[Track] = []
    for part in mido.MidiFile(str(midi)).tracks[1:]:
        now, program, drums = 0, 0, False
        programs: list[int] = []
        open_notes: dict[int, tuple[int, int]] = {}
        rows: list[tuple[float, float, float, float]] = []
        for message in part:
            now += message.time
            if message.type == "program_change":
                program = message.program
            elif message.type in ("note_on", "note_off"):
                drums = drums or message.channel == 9
                begun = open_notes.pop(message.note, None)
                if begun is not None:
                    rows.append((begun[0] / ticks, max(now - begun[0], 1) / ticks, message.note, begun[1]))
                if message.type == "note_on" and message.velocity:
                    open_notes[message.note] = (now, message.velocity)
                    programs.append(program)
        if rows:
            usual = max(sorted(set(programs)), key=programs.count)
            role = "drums" if drums else _role(part.name)
            notes = np.array(sorted(rows), np.float64)
            tracks.append(Track(role, DRUMS if drums else usual, notes))
    return tuple(tracks)
