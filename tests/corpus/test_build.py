"""A whole small build with MMA and fluidsynth: same bytes from any number of workers, sound clips, honest report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicrl.config import CorpusConfig
from musicrl.corpus import build as room
from musicrl.corpus import render, tunes
from musicrl.corpus.dataset import Corpus
from musicrl.corpus.splits import split_of
from musicrl.corpus.styles import STYLES
from musicrl.corpus.tune import Key, Note, Tune, TuneError
from musicrl.errors import UserError

SOUNDFONT = "TimGM6mb.sf2"
needs_programs = pytest.mark.skipif(
    shutil.which("mma") is None or shutil.which("fluidsynth") is None, reason="needs the programs mma and fluidsynth"
)


def scale(name: str, meter: tuple[int, int], key: Key, voices: int = 0) -> Tune:
    """A tune that runs up and down its scale in eighths for 16 bars."""
    count = 16 * meter[0] * 8 // meter[1]
    steps = (0, 2, 3 if key.minor else 4, 7, 9, 7, 4, 2)
    notes = tuple(Note(i * 0.5, 0.5, 60 + key.tonic + steps[i % 8]) for i in range(count))
    lower = tuple(tuple(Note(n.onset, n.duration, n.pitch - 12 * v) for n in notes) for v in range(1, voices + 1))
    return Tune(name, name, meter, key, 16, notes, lower)


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch):
    """A handful of tunes in place of music21's books."""

    def few(workers: int):
        assert workers >= 1
        yield TuneError("t/0", "too short")
        for mode in ("major", "minor"):
            for meter in ((4, 4), (3, 4), (6, 8)):
                yield scale(f"t/{mode}-{meter}", meter, Key(2, mode))
        yield scale("t/chorale", (4, 4), Key(0, "minor"), voices=3)
        yield scale("t/again", (4, 4), Key(2, "major"))

    monkeypatch.setattr(tunes, "_read_all", few)


def config(**settings: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"clips": 4, "seed": 5, "soundfonts": (SOUNDFONT,), **settings})


def content(folder: Path) -> dict[str, bytes]:
    files = [folder / "metadata.jsonl", folder / "notes.npz", *sorted((folder / "audio").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@needs_programs
@pytest.mark.usefixtures("books")
def test_same_bytes_whatever_the_number_of_workers(tmp_path: Path):
    report = room.build(config(workers=1), tmp_path / "one")
    room.build(config(workers=2), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert report["clips"] + sum(report["rejected"].values()) == 4
    assert report["tunes_dropped"] == {"too short": 1, "printed twice": 1}
    assert sum(report["by_style"].values()) == report["clips"]
    assert not (tmp_path / "one" / "parts").exists()

    corpus = Corpus(tmp_path / "one")
    for clip in corpus.rows():
        samples, rate = soundfile.read(tmp_path / "one" / clip.file_name, dtype="float32")
        assert (rate, samples.shape) == (24_000, (245_760,))
        assert render.fault(samples) is None
        assert clip.split == split_of(clip.tune)
        notes = corpus.notes(clip)
        assert notes is not None
        assert sorted({int(p) for p in notes[:, 3]}) == clip.attributes["programs"]
        assert notes[:, 0].max() < 10.24
        assert clip.attributes["brightness"] == render.brightness_class(clip.attributes["centroid_hz"])

    with pytest.raises(UserError, match="other settings"):
        room.build(config(seed=6), tmp_path / "one")
    assert room.build(config(workers=1), tmp_path / "one") == json.loads((tmp_path / "one/report.json").read_text())


@needs_programs
@pytest.mark.usefixtures("books")
def test_an_interrupted_build_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room.build(config(workers=1), tmp_path / "whole")

    spread = room._spread  # pyright: ignore[reportPrivateUsage]

    def first_group_only(pool: Any, groups: list[int], workers: int, stop: Any):
        yield from spread(pool, groups[:1], workers, stop)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "_spread", first_group_only)
    with pytest.raises(KeyboardInterrupt):
        room.build(config(workers=1), tmp_path / "part")
    assert len(list((tmp_path / "part" / "parts").glob("*.npz"))) == 1
    monkeypatch.setattr(room, "_spread", spread)
    room.build(config(workers=1), tmp_path / "part")
    assert content(tmp_path / "part") == content(tmp_path / "whole")


def test_each_round_of_styles_has_every_style():
    round_length = len(STYLES) + 1
    names = [room.style_of(group, seed=3).name for group in range(2 * round_length)]
    assert names.count("waltz") == 4
    assert set(names) == set(STYLES)
    assert names[:round_length] != names[round_length:]


@pytest.mark.usefixtures("books")
def test_mistakes_before_anything_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(UserError, match=r"nothing\.sf2"):
        room.build(config(soundfonts=("nothing.sf2",)), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "letter.txt").touch()
    (tmp_path / "x.sf2").touch()
    with pytest.raises(UserError, match="holds no corpus build"):
        room.build(config(soundfonts=("x.sf2",), soundfont_folder=tmp_path), tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="program mma is missing"):
        room.build(config(), tmp_path / "new")


def test_without_music21_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tunes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'musicrl\[pretrain\]'"):
        tunes.load(tmp_path / "tunes.json")


@pytest.mark.usefixtures("books")
def test_tunes_are_read_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read, dropped = tunes.load(tmp_path / "tunes.json")
    monkeypatch.setattr(tunes, "_read_all", lambda workers: pytest.fail("read twice"))
    assert tunes.load(tmp_path / "tunes.json") == (read, dropped)
    assert len(read) == 7
    assert np.isclose(read[0].bar_quarters, 4)
