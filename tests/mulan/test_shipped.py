"""The model that ships, on twelve held-out clips of 6 s and their captions in phrasings it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from musicrl import mulan
from musicrl.audio import io
from musicrl.corpus.dataset import Corpus
from musicrl.mulan.measure import retrieval

FOLDER = Path(__file__).parents[1] / "data" / "clips"


@pytest.fixture(scope="module")
def model() -> mulan.MuLan:
    return mulan.load()


@pytest.fixture(scope="module")
def sides(model: mulan.MuLan) -> tuple[Tensor, Tensor]:
    clips = Corpus(FOLDER).rows()
    audio = torch.stack([io.read(FOLDER / clip.file_name) for clip in clips])
    return model.embed_text([clip.text for clip in clips]), model.embed_audio(audio)


def test_captions_find_their_clips_far_better_than_chance(sides: tuple[Tensor, Tensor]) -> None:
    text, audio = sides
    # Chance is the mean of 1/1 ... 1/12.
    assert retrieval(text @ audio.T, torch.arange(12))["MRR"] > 2 * 0.259
    assert retrieval(text @ audio.T, torch.arange(12).roll(1))["MRR"] < 2 * 0.259


def test_own_captions_are_closer_than_others(sides: tuple[Tensor, Tensor]) -> None:
    similarity = sides[0] @ sides[1].T
    own = similarity.diagonal().mean()
    others = (similarity.sum() - similarity.trace()) / (12 * 11)
    assert own > others + 0.2


def test_tokens_say_what_the_embedding_says(model: mulan.MuLan, sides: tuple[Tensor, Tensor]) -> None:
    for embedding in sides:
        tokens = model.tokens(embedding)
        assert tokens.shape == (12, 12)
        assert torch.equal(tokens, model.tokens(embedding))
        cosine = torch.cosine_similarity(model.from_tokens(tokens), embedding)
        assert cosine.mean() > 0.9
        assert len({tuple(row) for row in tokens.tolist()}) == 12


def test_level_of_the_clip_hardly_matters(model: mulan.MuLan, sides: tuple[Tensor, Tensor]) -> None:
    clips = Corpus(FOLDER).rows()[:4]
    quiet = 0.5 * torch.stack([io.read(FOLDER / clip.file_name) for clip in clips])
    assert torch.cosine_similarity(model.embed_audio(quiet), sides[1][:4]).mean() > 0.85
