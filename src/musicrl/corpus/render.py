"""Notes to sound: a MIDI file, the fluidsynth program, two stems mixed so that the melody is heard."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from musicrl.corpus.instruments import DRUMS
from musicrl.errors import UserError

SAMPLE_RATE = 24_000
CLIP_SAMPLES = 245_760
_TICKS = 480
_PLACES = (
    "/usr/share/sounds/sf2",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)


def find_soundfonts(names: tuple[str, ...], folder: Path | None) -> dict[str, Path]:
    """Find soundfont files by name.

    Args:
        names: file names, e.g. `FluidR3_GM.sf2`.
        folder: where to look first, or None for the system's places only.

    Returns:
        Path of each, keyed by its name without suffix.

    Raises:
        UserError: one is not there.
    """
    found: dict[str, Path] = {}
    for name in names:
        places = ([folder] if folder else []) + [Path(p) for p in _PLACES]
        path = next((p / name for p in places if (p / name).is_file()), None)
        if path is None:
            raise UserError(
                f"soundfont {name} is in none of {', '.join(str(p) for p in places)}; install it, e.g. "
                "`apt-get install fluid-soundfont-gm timgm6mb-soundfont`, or set soundfont_folder"
            )
        found[path.stem] = path
    return found


def midi_bytes(notes: np.ndarray, seconds: float) -> bytes:
    """Write notes as a MIDI file with one channel for each program, percussion on channel 10.

    Args:
        notes: [n, 5]: onset s, duration s, pitch, program, velocity.
        seconds: where the file ends; notes still sounding are released there.

    Returns:
        The file's bytes.
    """
    import io

    import mido

    channels: dict[int, int] = {}
    free = iter([c for c in range(16) if c != 9])
    events: list[tuple[int, int, Any]] = []
    scale = _TICKS * 2
    for onset, duration, pitch, program, velocity in notes.tolist():
        number = int(program)
        if number not in channels:
            channels[number] = 9 if number == DRUMS else next(free, 15)
            if number != DRUMS:
                change = mido.Message("program_change", channel=channels[number], program=number)
                events.append((0, 0, change))
        channel = channels[number]
        start = round(onset * scale)
        stop = max(start + 1, round(min(onset + duration, seconds) * scale))
        on = mido.Message("note_on", channel=channel, note=int(pitch), velocity=int(velocity))
        events.append((start, 2, on))
        events.append((stop, 1, mido.Message("note_off", channel=channel, note=int(pitch), velocity=0)))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)])
    now = 0
    for tick, _, message in sorted(events, key=lambda e: (e[0], e[1])):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(seconds * scale) - now)))
    out = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track]).save(file=out)
    return out.getvalue()


def synthesise(notes: np.ndarray, soundfont: Path, seconds: float, room: float, workdir: Path) -> np.ndarray:
    """Play notes through a soundfont.

    Args:
        notes: [n, 5] as in `midi_bytes`.
        soundfont: an SF2 or SF3 file.
        seconds: how much to render.
        room: reverberation room size, 0..1.
        workdir: folder for the MIDI file and the raw samples.

    Returns:
        [N] float32 mono at 24 kHz, N <= seconds * 24000, unscaled.

    Raises:
        UserError: fluidsynth is missing or failed.
    """
    source, target = workdir / "clip.mid", workdir / "clip.raw"
    source.write_bytes(midi_bytes(notes, seconds))
    target.unlink(missing_ok=True)
    options = ("synth.dynamic-sample-loading=1", f"synth.reverb.room-size={room:.3f}", "synth.cpu-cores=1")
    command = ["fluidsynth", "-ni", "-q", "-r", str(SAMPLE_RATE), "-g", "0.5", "-O", "float", "-T", "raw"]
    command += [part for option in options for part in ("-o", option)] + [
        "-F",
        str(target),
        str(soundfont),
        str(source),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            "the synthesiser fluidsynth is missing; install it, e.g. `apt-get install fluidsynth`"
        ) from None
    if done.returncode or not target.exists():
        raise UserError(f"fluidsynth failed on {soundfont}: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
    samples = np.fromfile(target, np.float32)
    stereo = samples[: len(samples) // 2 * 2].reshape(-1, 2)
    return stereo.mean(1)[: round(seconds * SAMPLE_RATE)]


@lru_cache(maxsize=1)
def _high_pass() -> Any:
    from scipy.signal import butter

    return butter(2, 250, "highpass", fs=SAMPLE_RATE, output="sos")


def audible_rms(audio: np.ndarray) -> float:
    """Return the RMS above 250 Hz of the louder half of a clip's 50 ms frames (a bass line hides no melody)."""
    from scipy.signal import sosfilt

    filtered = np.asarray(sosfilt(_high_pass(), audio))
    frames = filtered[: len(filtered) // 1200 * 1200].reshape(-1, 1200)
    power = np.sort((frames**2).mean(1))
    return float(np.sqrt(power[len(power) // 2 :].mean())) if len(power) else 0.0


def mix(lead: np.ndarray, backing: np.ndarray | None, lead_db: float, level_db: float) -> np.ndarray:
    """Mix melody and accompaniment and set the level.

    Args:
        lead: [N] melody stem.
        backing: [M] the rest, or None for a solo.
        lead_db: how far the melody stands over the rest above 250 Hz.
        level_db: RMS level aimed at, in dBFS; lowered where the peak would pass -1 dBFS.

    Returns:
        [min(N, M)] float32.
    """
    total = lead.astype(np.float64)
    if backing is not None:
        length = min(len(lead), len(backing))
        loud, quiet = audible_rms(lead[:length]), audible_rms(backing[:length])
        gain = 10 ** (lead_db / 20) * quiet / loud if loud > 0 and quiet > 0 else 1.0
        total = lead[:length] * gain + backing[:length]
    rms, peak = float(np.sqrt(np.mean(total**2))), float(np.abs(total).max(initial=0.0))
    if peak == 0.0:
        return total.astype(np.float32)
    gain = min(10 ** (level_db / 20) / rms, 0.891 / peak)
    return (total * gain).astype(np.float32)


def fault(audio: np.ndarray) -> str | None:
    """Return why a clip must be rejected: `too short`, `clipped`, `silent`; or None for a sound one.

    Silent means: quieter than -45 dBFS as a whole, nothing in the first half second, or a fifth of it under -60 dBFS.
    """
    if len(audio) < CLIP_SAMPLES:
        return "too short"
    if float(np.mean(np.abs(audio) >= 0.999)) > 1e-4:
        return "clipped"
    frames = audio[: len(audio) // 480 * 480].reshape(-1, 480)
    level = np.sqrt((frames.astype(np.float64) ** 2).mean(1))
    if np.sqrt((level**2).mean()) < 10 ** (-45 / 20) or level[:25].max() < 1e-3 or np.mean(level < 1e-3) > 0.2:
        return "silent"
    return None


def centroid(audio: np.ndarray) -> float:
    """Return the energy-weighted mean spectral centroid of a clip in Hz."""
    frames = audio[: len(audio) // 2048 * 2048].reshape(-1, 2048) * np.hanning(2048).astype(np.float32)
    magnitude = np.abs(np.fft.rfft(frames, axis=1))
    frequency = np.fft.rfftfreq(2048, 1 / SAMPLE_RATE)
    return float((magnitude @ frequency).sum() / max(float(magnitude.sum()), 1e-9))


def brightness_class(centroid_hz: float) -> str:
    """Return `dark`, `warm` or `bright` for a spectral centroid."""
    return "dark" if centroid_hz < 1500 else "bright" if centroid_hz >= 2400 else "warm"
