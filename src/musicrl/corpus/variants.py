"""Clips from an arrangement: where it starts, how fast, in which key, who plays, who rests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicrl.corpus.arrange import BEATS, Arrangement, Track
from musicrl.corpus.instruments import BASSES, CHORDAL, DRUMS, FAMILIES, LEADS, NAME_OF, Lead
from musicrl.corpus.styles import Style

CLIP_SECONDS = 10.24
_RENDERED_SECONDS = 10.6
_BEAT_BOUND = frozenset(
    (
        "rock",
        "rock and roll",
        "funk",
        "disco",
        "house",
        "techno",
        "trance",
        "hip hop",
        "heavy metal",
        "ska",
        "samba",
        "salsa",
        "polka",
        "march",
        "big band",
        "soul",
        "pop",
        "jazz fusion",
    )
)
"""Styles nobody would recognise without their drums or bass."""
_ELECTRONIC = frozenset(("house", "techno", "trance", "ambient", "heavy metal", "disco"))


@dataclass(frozen=True)
class Variant:
    """One clip before it sounds.

    Attributes:
        notes: [n, 5] float32: onset s, duration s, pitch, program (`DRUMS` for percussion), velocity.
        is_lead: [n] bool, which notes are the melody.
        lead_db: loudness of the melody over the rest, in dB above 250 Hz.
        attributes: what the caption may speak of (see `captions`).
    """

    notes: np.ndarray
    is_lead: np.ndarray
    lead_db: float
    attributes: dict[str, Any]


def bars_needed(style: Style, beats: int) -> int:
    """Return how many bars an arrangement needs so that every variant of it fills a clip."""
    return math.ceil(_RENDERED_SECONDS * style.tempo[1] / 60 / beats) + 8


def pick_lead(style: Style, rng: np.random.Generator, taken: set[str]) -> Lead:
    """Choose a lead: about half the time typical of the style, else any; never one already taken."""
    names = [n for family in style.leads for n in FAMILIES[family]] if rng.random() < 0.5 else list(LEADS)
    free = sorted({n for n in names if n not in taken}) or sorted(LEADS)
    return LEADS[free[int(rng.integers(len(free)))]]


def vary(piece: Arrangement, lead: Lead, rng: np.random.Generator) -> Variant:
    """Make one clip's notes and attributes from an arrangement.

    Args:
        piece: arrangement of at least `bars_needed` bars.
        lead: who plays the melody.
        rng: decides everything else: tempo, key, start, texture, instruments, dynamics.
    """
    style, beats = piece.style, BEATS[piece.meter]
    low, high = style.tempo
    tempo = round(float(low * (high / low) ** rng.random()))
    bar_seconds = 60 / tempo * beats
    needed = math.ceil(_RENDERED_SECONDS / bar_seconds)
    first = int(rng.choice([b for b in range(0, piece.bars - needed + 1, 4)]))
    shift = int(rng.integers(-5, 7))
    texture, tracks = _texture(piece, rng)
    program = int(lead.programs[int(rng.integers(len(lead.programs)))])
    tracks = _reorchestrate(tracks, style, lead, program, rng)

    melody = _melody(piece.melody, first, beats, bar_seconds, shift, lead, program, rng)
    backing = [_placed(track, first, bar_seconds, shift, rng) for track in tracks]
    notes = np.concatenate([melody, *backing]).astype(np.float32)
    is_lead = np.zeros(len(notes), bool)
    is_lead[: len(melody)] = True
    inside = notes[:, 0] < CLIP_SECONDS
    heard = notes[inside]
    attributes: dict[str, Any] = {
        "style": "solo" if texture == "solo" else style.name,
        "groove": piece.groove if texture != "solo" else None,
        "lead": lead.name,
        "instruments": _instruments(lead.name, heard),
        "drums": bool((heard[:, 3] == DRUMS).any()),
        "texture": texture,
        "tempo_bpm": tempo,
        "tempo_class": tempo_class(tempo),
        "key": str(piece.key.transposed(shift)),
        "mode": "minor" if piece.key.minor else "major",
        "meter": piece.meter,
        "notes_per_second": round(_onsets(heard) / CLIP_SECONDS, 2),
        "density": density_class(_onsets(heard) / CLIP_SECONDS),
        "programs": sorted({int(p) for p in heard[:, 3]}),
        "lead_program": program,
    }
    return Variant(notes, is_lead, float(rng.uniform(1.5, 6.5)), attributes)


def tempo_class(bpm: float) -> str:
    """Return `slow` under 85 beats per minute, `fast` from 125, `medium` between."""
    return "slow" if bpm < 85 else "fast" if bpm >= 125 else "medium"


def density_class(onsets_per_second: float) -> str:
    """Return `sparse`, `moderate` or `busy` for how many separate note onsets there are a second."""
    return "sparse" if onsets_per_second < 3.2 else "busy" if onsets_per_second >= 7.5 else "moderate"


def _onsets(notes: np.ndarray) -> int:
    return len(np.unique(np.round(notes[:, 0] / 0.04)))


def _instruments(lead: str, notes: np.ndarray) -> list[str]:
    names = [lead]
    programs, counts = np.unique(notes[:, 3].astype(int), return_counts=True)
    for program, count in zip(programs, counts, strict=True):
        name = NAME_OF.get(int(program))
        if count >= 3 and name is not None and name not in names:
            names.append(name)
    return names


def _texture(piece: Arrangement, rng: np.random.Generator) -> tuple[str, list[Track]]:
    tracks = list(piece.tracks)
    pitched = [t for t in tracks if t.role != "drums"]
    drums = [t for t in tracks if t.role == "drums"]
    dice = rng.random()
    if dice < 0.05:
        return "solo", []
    if piece.style.name in _BEAT_BOUND or not pitched:
        if len(pitched) > 2 and rng.random() < 0.25:
            pitched.pop(int(rng.integers(len(pitched))))
        return "band", drums + pitched
    if dice < 0.15:
        chords = [t for t in pitched if t.role in ("chords", "voice")] or pitched
        return "duo", [max(chords, key=lambda t: len(t.notes))]
    if dice < 0.32 and drums:
        return "band", pitched
    if dice < 0.40 and drums:
        return "band", drums + [t for t in pitched if t.role == "bass"] + [t for t in pitched if t.role != "bass"][:1]
    return "band", tracks


def _reorchestrate(
    tracks: list[Track], style: Style, lead: Lead, lead_program: int, rng: np.random.Generator
) -> list[Track]:
    if style.name == "chorale":
        program = lead_program if rng.random() < 0.4 else int(rng.choice([19, 48, 52, 61, 0, 21, 42, 70, 71]))
        return [Track(t.role, program, t.notes) for t in tracks]
    change = rng.random() < (0.2 if style.name in _ELECTRONIC else 0.35)
    chordal = [p for p in CHORDAL if NAME_OF[p] != lead.name]
    out: list[Track] = []
    for track in tracks:
        program = track.program
        if track.role == "bass":
            if change and rng.random() < 0.4:
                program = int(rng.choice(BASSES))
        elif track.role != "drums":
            clash = NAME_OF.get(program) == lead.name or program not in NAME_OF
            if clash or (change and rng.random() < 0.5):
                program = int(rng.choice(chordal))
        out.append(Track(track.role, program, track.notes))
    return out


def _placed(track: Track, first: int, bar_seconds: float, shift: int, rng: np.random.Generator) -> np.ndarray:
    rows = track.notes[(track.notes[:, 0] >= first - 1e-6)].copy()
    onset = np.maximum((rows[:, 0] - first) * bar_seconds, 0.0)
    keep = onset < _RENDERED_SECONDS
    rows, onset = rows[keep], onset[keep]
    drums = track.role == "drums"
    duration = np.maximum(rows[:, 1] * bar_seconds, 0.12 if drums else 0.05)
    pitch = rows[:, 2] if drums else np.clip(rows[:, 2] + shift, 24, 108)
    velocity = np.clip(rows[:, 3] + rng.normal(0, 3, len(rows)), 20, 125).round()
    program = np.full(len(rows), float(track.program))
    return np.stack([onset, duration, pitch, program, velocity], 1)


def _melody(
    melody: np.ndarray,
    first: int,
    beats: int,
    bar_seconds: float,
    shift: int,
    lead: Lead,
    program: int,
    rng: np.random.Generator,
) -> np.ndarray:
    rows = melody[melody[:, 0] >= first - 1e-6]
    onset = (rows[:, 0] - first) * bar_seconds
    keep = onset < _RENDERED_SECONDS
    rows, onset = rows[keep], onset[keep]
    pitch = rows[:, 2] + shift
    pitch = pitch + 12 * _octaves(pitch, lead)
    place = (rows[:, 0] * beats) % beats
    on_beat = np.abs(place - np.round(place)) < 1e-3
    accent = 7.0 * (on_beat & (np.round(place) % beats == 0)) + 4.0 * on_beat
    velocity = np.clip(94 + accent + rng.normal(0, 5, len(rows)), 50, 125).round()
    late = np.abs(rng.normal(0, 0.006, len(rows)))
    duration = np.maximum(rows[:, 1] * bar_seconds * float(rng.uniform(0.86, 0.98)), 0.06)
    return np.stack([onset + late, duration, pitch, np.full(len(rows), float(program)), velocity], 1)


def _octaves(pitch: np.ndarray, lead: Lead) -> int:
    if not len(pitch):
        return 0
    centre = (lead.low + lead.high) / 2

    def cost(octave: int) -> float:
        moved = pitch + 12 * octave
        outside = np.maximum(lead.low - moved, 0) + np.maximum(moved - lead.high, 0)
        return float(outside.sum() * 10 + abs(moved.mean() - centre))

    return min(range(-4, 5), key=cost)
