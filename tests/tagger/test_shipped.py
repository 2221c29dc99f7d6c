"""The tagger that ships, on twelve held-out clips of 6 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musicrl import tagger
from musicrl.audio import io
from musicrl.corpus.dataset import Corpus

FOLDER = Path(__file__).parents[1] / "data" / "clips"


@pytest.fixture(scope="module")
def model() -> tagger.Tagger:
    return tagger.load()


@pytest.fixture(scope="module")
def audio() -> Tensor:
    return torch.stack([io.read(FOLDER / clip.file_name) for clip in Corpus(FOLDER).rows()])


@pytest.fixture(scope="module")
def attributes() -> list[dict[str, Any]]:
    return [dict(clip.attributes) for clip in Corpus(FOLDER).rows()]


def test_clips_match_their_own_attributes_and_not_those_of_others(
    model: tagger.Tagger, audio: Tensor, attributes: list[dict[str, Any]]
) -> None:
    own = model.match(audio, attributes)
    others = model.match(audio, attributes[1:] + attributes[:1])
    assert own.mean() > others.mean() + 0.2


def test_drums_are_heard(model: tagger.Tagger, audio: Tensor, attributes: list[dict[str, Any]]) -> None:
    guesses = model(audio)["drums"].argmax(1).tolist()
    truth = [model.index("drums", clip["drums"]) for clip in attributes]
    assert sum(a == b for a, b in zip(guesses, truth, strict=True)) >= 10


def test_a_clip_of_three_seconds_is_enough(
    model: tagger.Tagger, audio: Tensor, attributes: list[dict[str, Any]]
) -> None:
    assert model.match(audio[:, :72_000], attributes).mean() > 0.4
