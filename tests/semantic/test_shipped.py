"""The tokenizer that ships, on twelve held-out clips of 6 s."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from musicrl import semantic
from musicrl.audio import io
from musicrl.corpus.dataset import Corpus
from musicrl.errors import UserError

FOLDER = Path(__file__).parents[1] / "data" / "clips"


@pytest.fixture(scope="module")
def tokenizer() -> semantic.SemanticTokenizer:
    return semantic.load()


@pytest.fixture(scope="module")
def audio() -> Tensor:
    return torch.stack([io.read(FOLDER / clip.file_name) for clip in Corpus(FOLDER).rows()])


@pytest.fixture(scope="module")
def codes(tokenizer: semantic.SemanticTokenizer, audio: Tensor) -> Tensor:
    return tokenizer.encode(audio)


def test_two_codes_every_forty_milliseconds(tokenizer: semantic.SemanticTokenizer, codes: Tensor) -> None:
    assert codes.shape == (12, 2, 150)
    assert codes.dtype == torch.int64
    assert int(codes.min()) >= 0
    assert int(codes.max()) < tokenizer.codebook_size


def test_a_clip_has_its_codes_whatever_shares_the_batch(
    tokenizer: semantic.SemanticTokenizer, audio: Tensor, codes: Tensor
) -> None:
    assert torch.equal(tokenizer.encode(audio), codes)
    assert (tokenizer.encode(audio[3:4]) == codes[3:4]).double().mean() > 0.999


def test_codes_do_not_depend_on_where_a_clip_was_cut(
    tokenizer: semantic.SemanticTokenizer, audio: Tensor, codes: Tensor
) -> None:
    # Two seconds later in; away from the cut by more than the encoder's field of view.
    later = tokenizer.encode(audio[:, 48_000:])
    same = later[:, :, 20:-20] == codes[:, :, 70:-20]
    assert same.double().mean() > 0.99


def test_many_codes_are_in_use(codes: Tensor) -> None:
    for k in range(2):
        assert len(codes[:, k].unique()) > 250


def test_codes_are_held_where_a_tone_is_and_change_with_it(tokenizer: semantic.SemanticTokenizer) -> None:
    time = torch.arange(48_000) / 24_000
    tones = [sum(torch.sin(2 * math.pi * h * f * time) / h**2 for h in range(1, 6)) for f in (440.0, 587.33)]
    low, high = (tokenizer.encode(0.1 * torch.as_tensor(tone)[None])[0, 0, 15:-15] for tone in tones)
    for held in (low, high):
        assert (held[1:] == held[:-1]).double().mean() > 0.8
    assert low.mode().values != high.mode().values


def test_too_short_audio_is_the_users_mistake(tokenizer: semantic.SemanticTokenizer) -> None:
    with pytest.raises(UserError, match="give at least 960"):
        tokenizer.encode(torch.zeros(1, 959))
