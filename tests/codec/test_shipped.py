"""The shipped codec on three clips of the corpus' test split, three seconds each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from musicrl import codec as room
from musicrl.audio import io
from musicrl.audio.loudness import lufs
from musicrl.codec import Codec
from musicrl.codec.losses import mel_distance

RATE = 24_000
CLIPS = sorted((Path(__file__).parents[1] / "data/codec").glob("*.flac"))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return room.load()


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return torch.stack([io.read(path) for path in CLIPS])


def test_the_round_trip_is_within_bounds_and_shuffled_frames_are_not(codec: Codec, audio: torch.Tensor) -> None:
    codes = codec.encode(audio)
    assert codes.shape == (3, 12, 150)
    assert mel_distance(codec.decode(codes), audio, RATE).max() < 0.45
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert mel_distance(codec.decode(codes[:, :, order]), audio, RATE).min() > 0.6


def test_each_further_level_brings_the_clip_closer(codec: Codec, audio: torch.Tensor) -> None:
    codes = codec.encode(audio)
    errors = torch.stack([mel_distance(codec.decode(codes[:, :k]), audio, RATE) for k in (1, 2, 4, 8, 12)])
    assert bool((errors[1:] < errors[:-1]).all()), errors
    assert bool((errors[-1] < 0.65 * errors[0]).all()), errors


def test_more_than_half_of_every_codebook_is_in_use(codec: Codec, audio: torch.Tensor) -> None:
    # Three clips have 450 frames; transposed by resampling and at other levels they fill the space of 1,024 codes.
    seen = torch.zeros(codec.num_codebooks, codec.codebook_size, dtype=torch.bool)
    for i, semitones in enumerate(range(-14, 15)):
        other = io.resample(audio, RATE, round(RATE * 2 ** (-semitones / 12))) * (0.6, 1.0, 1.5)[i % 3]
        codes = codec.encode(other)
        for level in range(codec.num_codebooks):
            seen[level, codes[:, level].flatten()] = True
    assert float(seen.float().mean(1).min()) > 0.5


def test_loudness_survives(codec: Codec, audio: torch.Tensor) -> None:
    decoded = codec.decode(codec.encode(audio))
    for ours, theirs in zip(decoded, audio, strict=True):
        assert abs(lufs(ours, RATE) - lufs(theirs, RATE)) < 2.0


def test_silent_ends_stay_silent(codec: Codec, audio: torch.Tensor) -> None:
    decoded = codec.decode(codec.encode(F.pad(audio, (7200, 7200))))
    assert float(torch.cat([decoded[:, :2400], decoded[:, -2400:]]).abs().max()) < 0.005
    assert float(decoded[:, 7200:-7200].abs().max()) > 0.2


def test_ends_amid_music_have_no_clicks(codec: Codec, audio: torch.Tensor) -> None:
    decoded = codec.decode(codec.encode(audio))
    steps = decoded.diff(dim=1).abs()
    ends = torch.cat([steps[:, :240], steps[:, -240:]], 1).amax(1)
    assert bool((ends <= 1.2 * steps[:, 240:-240].amax(1)).all())
