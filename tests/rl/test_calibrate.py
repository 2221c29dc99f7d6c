from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from musicrl.config import FinetuneConfig
from musicrl.errors import UserError
from musicrl.rewards.protocol import Generations
from musicrl.rl import calibrate

CONFIG = FinetuneConfig(seconds=0.3)


class Codes:
    name = "codes"
    needs_audio = False

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.seen: list[Tensor] = []

    def __call__(self, batch: Generations) -> Tensor:
        assert batch.codes is not None
        self.seen.append(batch.codes)
        return self.function(batch.codes)


def mean(codes: Tensor) -> Tensor:
    return 3.0 + codes.float().mean(dim=(1, 2))


def test_scales_are_mean_and_deviation_within_a_prompt_of_the_reference(make_policy: Callable):
    policy = make_policy()
    reward = Codes(mean)
    scales = calibrate(policy, {"codes": reward}, ("0", "1", "2"), CONFIG)
    values = mean(reward.seen[0])
    assert reward.seen[0].shape == (12, 2, 3)
    within = torch.stack([values[i : i + 4].var() for i in (0, 4, 8)]).mean().sqrt()
    assert scales["codes"] == pytest.approx((values.mean().item(), within.item()))
    with torch.no_grad():
        policy.adapter += 5.0 * torch.randn(policy.adapter.shape)
    assert calibrate(policy, {"codes": reward}, ("0", "1", "2"), CONFIG) == scales


def test_sampling_shows_progress_and_no_batch_size_changes_the_scales(
    make_policy: Callable, capsys: pytest.CaptureFixture[str]
):
    prompts = tuple(str(i) for i in range(6))
    small, large = (
        calibrate(make_policy(prompts), {"codes": Codes(mean)}, prompts, FinetuneConfig(seconds=0.3, **size))
        for size in ({"device_batch_size": 1}, {"device_batch_size": 64})
    )
    assert small == large
    assert "measure rewards on the start policy: 6/6" in capsys.readouterr().err


def test_scales_that_are_given_are_kept_and_nothing_is_sampled_for_them(make_policy: Callable):
    policy: Any = make_policy()
    policy.sample = None
    config = FinetuneConfig(seconds=0.3, scales={"codes": (1.0, 2.0)})
    assert calibrate(policy, {"codes": Codes(mean)}, ("0",), config) == {"codes": (1.0, 2.0)}


def test_reward_without_spread_or_with_nan_is_refused(make_policy: Callable):
    with pytest.raises(UserError, match="same for every clip of a prompt"):
        calibrate(make_policy(), {"codes": Codes(lambda codes: torch.ones(codes.shape[0]))}, ("0",), CONFIG)
    with pytest.raises(UserError, match="NaN"):
        calibrate(make_policy(), {"codes": Codes(lambda codes: codes[:, 0, 0] * float("nan"))}, ("0",), CONFIG)


def test_what_a_prompt_adds_to_all_its_clips_does_not_count(make_policy: Callable):
    class Offset(Codes):
        def __call__(self, batch: Generations) -> Tensor:
            return super().__call__(batch) + 100.0 * torch.tensor([float(prompt) for prompt in batch.prompts])

    prompts = ("0", "1", "2")
    plain = calibrate(make_policy(), {"codes": Codes(mean)}, prompts, CONFIG)["codes"]
    offset = calibrate(make_policy(), {"codes": Offset(mean)}, prompts, CONFIG)["codes"]
    assert offset[1] == pytest.approx(plain[1], rel=1e-3)
    assert offset[0] > plain[0] + 50
