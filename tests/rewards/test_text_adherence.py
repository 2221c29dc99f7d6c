from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl.rewards.protocol import Generations, Reward
from musicrl.rewards.text_adherence import TextAdherence


class Tiny:
    """The text "u,v" and audio whose first two samples are u, v meet in the plane."""

    sample_rate = 24_000

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.batches: list[tuple[int, ...]] = []

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        # One by one: the rounding of an embedding depends on what else is in its batch.
        assert len(texts) == 1
        self.texts += texts
        return F.normalize(torch.tensor([[float(x) for x in text.split(",")] for text in texts]), dim=1)

    def embed_audio(self, audio: Tensor) -> Tensor:
        self.batches.append(tuple(audio.shape))
        return F.normalize(audio[:, :2], dim=1)


def test_cosine_by_hand_and_texts_embedded_once():
    embedding = Tiny()
    reward = TextAdherence(embedding)
    assert isinstance(reward, Reward)
    clips = Generations(("1,0", "0,2", "1,0"), None, torch.tensor([[2.0, 0.0], [0.0, -1.0], [1.0, 1.0]]), 24_000)
    assert reward(clips).tolist() == pytest.approx([1.0, -1.0, 0.5**0.5])
    reward(Generations(("0,2", "3,4"), None, torch.ones(2, 2), 24_000))
    assert embedding.texts == ["1,0", "0,2", "3,4"]


def test_audio_goes_to_the_device_of_the_embedding_and_scores_come_back():
    class Elsewhere(Tiny):
        def embed_text(self, texts: Sequence[str]) -> Tensor:
            return torch.ones(len(texts), 2, device="meta")

        def embed_audio(self, audio: Tensor) -> Tensor:
            assert audio.device.type == "meta"
            return super().embed_audio(audio)

    # The meta device holds no values, so the last step, back to the CPU, is the one that must fail.
    with pytest.raises(NotImplementedError, match="copy out of meta"):
        TextAdherence(Elsewhere())(Generations(("1,0",), None, torch.ones(1, 2), 24_000))


def test_long_batches_go_in_parts_and_other_rates_are_resampled():
    embedding = Tiny()
    reward = TextAdherence(embedding)
    assert reward(Generations(("1,1",) * 20, None, torch.ones(20, 100), 24_000)).shape == (20,)
    reward(Generations(("1,1",), None, torch.ones(1, 1600), 16_000))
    assert embedding.batches == [(16, 100), (4, 100), (1, 2400)]
