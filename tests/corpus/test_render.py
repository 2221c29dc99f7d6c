"""Levels, faults and MIDI files of rendered clips."""

from __future__ import annotations

import io
from pathlib import Path

import mido
import numpy as np
import pytest

from musicrl.corpus import render
from musicrl.corpus.instruments import DRUMS
from musicrl.errors import UserError

TIME = np.arange(render.CLIP_SAMPLES) / render.SAMPLE_RATE


def tone(hertz: float, level: float) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)


def test_faults():
    good = tone(440, 0.3)
    assert render.fault(good) is None
    assert render.fault(good[:-1]) == "too short"
    assert render.fault(np.clip(tone(440, 3.0), -1, 1)) == "clipped"
    assert render.fault(np.zeros_like(good)) == "silent"
    assert render.fault(tone(440, 0.003)) == "silent"
    late = good.copy()
    late[:14_000] = 0
    assert render.fault(late) == "silent"
    gap = good.copy()
    gap[100_000:160_000] = 0
    assert render.fault(gap) == "silent"


def test_lead_stands_over_the_rest_by_what_was_asked():
    lead, rest = tone(880, 0.01), tone(2000, 0.2)
    mixed = render.mix(lead, rest, lead_db=6.0, level_db=-30.0)
    spectrum = np.abs(np.fft.rfft(mixed * np.hanning(len(mixed))))
    bins = np.fft.rfftfreq(len(mixed), 1 / render.SAMPLE_RATE)
    ratio = spectrum[np.abs(bins - 880) < 5].max() / spectrum[np.abs(bins - 2000) < 5].max()
    assert 20 * np.log10(ratio) == pytest.approx(6.0, abs=0.3)
    assert 20 * np.log10(np.sqrt(np.mean(mixed**2))) == pytest.approx(-30.0, abs=0.01)


def test_level_gives_way_to_the_peak():
    spiky = np.zeros(render.CLIP_SAMPLES, np.float32)
    spiky[::1000] = 0.01
    assert np.abs(render.mix(spiky, None, 0.0, -19.0)).max() == pytest.approx(0.891, abs=1e-3)


def test_silence_stays_silence():
    assert not render.mix(np.zeros(100, np.float32), np.zeros(100, np.float32), 3.0, -19.0).any()


def test_brightness_of_tones():
    assert render.centroid(tone(1000, 0.5)) == pytest.approx(1000, rel=0.05)
    assert [render.brightness_class(hz) for hz in (1499, 1500, 2400)] == ["dark", "warm", "bright"]


def test_midi_keeps_times_programs_and_percussion():
    notes = np.array([[0.5, 0.25, 60, 40, 100], [0.0, 1.0, 64, 0, 80], [1.0, 5.0, 36, DRUMS, 90]])
    written = mido.MidiFile(file=io.BytesIO(render.midi_bytes(notes, 2.0)))
    now, onsets, offsets, programs = 0.0, {}, {}, {}
    for message in written:
        now += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on":
            onsets[message.note] = (round(now, 2), message.channel, message.velocity)
        elif message.type == "note_off":
            offsets[message.note] = round(now, 2)
    assert onsets[36] == (1.0, 9, 90)
    assert {note: onset for note, (onset, _, _) in onsets.items()} == {60: 0.5, 64: 0.0, 36: 1.0}
    assert offsets == {60: 0.75, 64: 1.0, 36: 2.0}
    assert programs[onsets[60][1]] == 40
    assert programs[onsets[64][1]] == 0


def test_missing_soundfont_names_the_package(tmp_path: Path):
    with pytest.raises(UserError, match=r"nothing\.sf2 .*apt-get install"):
        render.find_soundfonts(("nothing.sf2",), tmp_path)


def test_soundfont_folder_comes_first(tmp_path: Path):
    (tmp_path / "mine.sf2").touch()
    assert render.find_soundfonts(("mine.sf2",), tmp_path) == {"mine": tmp_path / "mine.sf2"}


def test_missing_synthesiser_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="fluidsynth is missing"):
        render.synthesise(np.array([[0, 1, 60, 0, 90.0]]), Path("x.sf2"), 1.0, 0.2, tmp_path)
