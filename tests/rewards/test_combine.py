from __future__ import annotations

import pytest
import torch
from torch import Tensor

from musicrl.errors import UserError
from musicrl.rewards.callable import from_callable
from musicrl.rewards.combine import WeightedSum
from musicrl.rewards.generations import from_audio, from_codes, needs_audio
from musicrl.rewards.protocol import Generations, Reward

BATCH = Generations(("a", "b"), None, torch.zeros(2, 10), 100)


def constant(name: str, *values: float) -> Reward:
    return from_callable(lambda prompts, audio, rate: list(values), name)


class Deaf:
    name = "deaf"
    needs_audio = False

    def __call__(self, batch: Generations) -> Tensor:
        return torch.zeros(len(batch.prompts))


def test_sum_by_hand():
    reward = WeightedSum(
        {"x": constant("x", 1.0, 2.0), "y": constant("y", 10.0, 20.0)},
        {"x": 1.0, "y": 0.5},
        {"x": (1.0, 2.0), "y": (10.0, 5.0)},
    )
    assert isinstance(reward, Reward)
    assert reward(BATCH).tolist() == [0.0, 0.5 + 0.5 * 2.0]
    assert {name: values.tolist() for name, values in reward.parts(BATCH).items()} == {"x": [1, 2], "y": [10, 20]}


def test_names_must_agree_and_deviations_be_positive():
    one = {"x": constant("x", 1.0)}
    with pytest.raises(UserError, match="must name the same"):
        WeightedSum(one, {"y": 1.0}, {"x": (0.0, 1.0)})
    with pytest.raises(UserError, match="must name the same"):
        WeightedSum({}, {}, {})
    with pytest.raises(UserError, match="scales of x"):
        WeightedSum(one, {"x": 1.0}, {"x": (0.0, 0.0)})


def test_sum_needs_audio_if_any_part_does():
    scales = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    weights = {"x": 1.0, "y": 1.0}
    assert not needs_audio(WeightedSum({"x": Deaf(), "y": Deaf()}, weights, scales))
    assert needs_audio(WeightedSum({"x": Deaf(), "y": constant("y", 1.0)}, weights, scales))
    assert needs_audio(constant("y", 1.0))


def test_any_function_is_a_reward():
    def brightness(prompts: object, audio: Tensor, sample_rate: int) -> Tensor:
        return audio.mean(dim=1) * sample_rate

    reward = from_callable(brightness)
    assert isinstance(reward, Reward) and reward.name == "brightness"
    scores = reward(Generations(("a", "b"), None, torch.tensor([[1.0, 3.0], [0.0, 1.0]]), 10))
    assert scores.dtype == torch.float32 and scores.tolist() == [20.0, 5.0]


def test_clips_are_matched_in_loudness_once():
    tone = torch.sin(torch.arange(24_000) * 2 * torch.pi * 440 / 24_000)
    clips = from_audio(("a", "b"), torch.stack([0.01 * tone, 0.5 * tone]), 24_000)
    torch.testing.assert_close(clips.audio[0], clips.audio[1], atol=1e-3, rtol=0)
    assert clips.audio.abs().max() > 0.05


def test_codes_are_decoded_in_parts_or_not_at_all():
    codes = torch.arange(10).view(5, 1, 2)
    sizes: list[int] = []

    def decode(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part[:, 0].float()

    clips = from_codes(("a",) * 5, codes, decode=decode, sample_rate=100, batch_size=2)
    assert sizes == [2, 2, 1] and clips.audio.tolist() == codes[:, 0].tolist()
    without = from_codes(("a",) * 5, codes, decode=None, sample_rate=100)
    assert without.audio.shape == (5, 0) and without.codes is codes
