"""Reading folders of clips: a user's own, and the mistakes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicrl.corpus.dataset import Corpus
from musicrl.corpus.splits import split_of
from musicrl.errors import UserError


def listing(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Three clips as a user might have them: stereo WAV at 44.1 kHz, FLAC at 24 kHz, Ogg at 48 kHz."""
    soundfile.write(tmp_path / "a.wav", np.stack([sine(440, 2, 44_100)] * 2, 1), 44_100)
    soundfile.write(tmp_path / "b.flac", sine(440, 1, 24_000), 24_000)
    soundfile.write(tmp_path / "c.ogg", sine(440, 1.5, 48_000), 48_000)
    return listing(
        tmp_path,
        [
            {"file_name": "a.wav", "text": "one", "split": "train"},
            {"file_name": "b.flac", "text": "two", "split": "train"},
            {"file_name": "c.ogg", "text": "three", "split": "test"},
        ],
    )


def test_reads_any_rate_as_24_khz_mono(own: Path):
    corpus = Corpus(own)
    assert len(corpus) == 3
    assert [len(corpus.audio(i)) / 24_000 for i in range(3)] == pytest.approx([2, 1, 1.5], abs=0.01)
    for clip in corpus.rows():
        audio = corpus.audio(clip).numpy()
        peak = np.argmax(np.abs(np.fft.rfft(audio))) * 24_000 / len(audio)
        assert peak == pytest.approx(440, abs=2)
        assert np.abs(audio).max() == pytest.approx(0.5, abs=0.03)
    assert corpus.notes(0) is None
    assert corpus.seconds(1) == pytest.approx(1, abs=0.01)
    assert corpus.rows("test")[0].file_name == "c.ogg"


def test_crops_are_pieces_of_their_clips_and_short_clips_repeat(tmp_path: Path):
    ramps = {"long.flac": 48_000, "short.flac": 24_000}  # every sample says where it stands
    for name, length in ramps.items():
        soundfile.write(tmp_path / name, (np.arange(length) - 24_000) / 32_768, 24_000)
    corpus = Corpus(listing(tmp_path, [{"file_name": name, "text": "x", "split": "train"} for name in ramps]))
    audio, clips = corpus.crops("train", 1.25, 12, np.random.default_rng(0))
    assert audio.shape == (12, 30_000)
    assert {clip.file_name for clip in clips} == set(ramps)
    starts = set()
    for row, clip in zip(audio.numpy(), clips, strict=True):
        whole = corpus.audio(clip).numpy()
        start = int(np.searchsorted(whole, row[0]))
        starts.add(start)
        if len(whole) < len(row):
            np.testing.assert_array_equal(row, np.resize(whole, len(row)))
        else:
            np.testing.assert_allclose(row, whole[start : start + len(row)], atol=1.5 / 32_768)
    assert len(starts) > 3
    again, _ = corpus.crops("train", 1.25, 12, np.random.default_rng(0))
    assert (again == audio).all()


def test_decoded_samples_are_kept_until_a_file_changes(own: Path):
    Corpus(own).audio(0)
    stamp = (own / ".samples.i16").stat().st_mtime_ns
    Corpus(own).audio(0)
    assert (own / ".samples.i16").stat().st_mtime_ns == stamp
    soundfile.write(own / "b.flac", sine(880, 3, 24_000), 24_000)
    assert len(Corpus(own).audio(1)) == 72_000
    assert len(Corpus(own).audio(2)) == pytest.approx(36_000, abs=50)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 1 is not JSON"),
        ("[1]", "no JSON object"),
        ('{"text": "x"}', "no file_name"),
        ('{"file_name": "a.wav", "text": " "}', "no text"),
        ('{"file_name": "a.wav", "text": "x", "split": "dev"}', "split 'dev'"),
        ('{"file_name": "gone.wav", "text": "x"}', r"gone\.wav is missing"),
        ("", "lists no clips"),
    ],
)
def test_mistakes_in_the_list_are_named(own: Path, line: str, message: str):
    (own / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        Corpus(own)


def test_empty_folder(tmp_path: Path):
    with pytest.raises(UserError, match="is not a corpus"):
        Corpus(tmp_path)
    with pytest.raises(UserError, match="is not a corpus"):
        Corpus(tmp_path / "nowhere")


def test_unreadable_audio_is_named_and_leaves_no_cache(own: Path):
    (own / "b.flac").write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"b\.flac"):
        Corpus(own).audio(0)
    assert not list(own.glob(".samples*"))


def test_empty_split_is_named(own: Path):
    with pytest.raises(UserError, match="no clips in its validation split"):
        Corpus(own).crops("validation", 1.0, 2, np.random.default_rng(0))


def test_splits_are_94_3_3_and_fixed():
    splits = [split_of(f"tune/{i}") for i in range(20_000)]
    assert splits.count("train") / 20_000 == pytest.approx(0.94, abs=0.006)
    assert splits.count("test") / 20_000 == pytest.approx(0.03, abs=0.004)
    assert split_of("ryan/AllTheGoReel/1") == split_of("ryan/AllTheGoReel/1")
