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


def test_scales_are_mean_and_deviation_on_the_reference(make_policy: Callable):
    policy = make_policy()
    reward = Codes(mean)
    scales = calibrate(policy, {"codes": reward}, ("0", "1", "2"), CONFIG)
    values = mean(reward.seen[0])
    assert reward.seen[0].shape == (66, 2, 3)
    assert scales["codes"] == pytest.approx((values.mean().item(), values.std().item()))
    with torch.no_grad():
        policy.adapter += 5.0 * torch.randn(policy.adapter.shape)
    assert calibrate(policy, {"codes": reward}, ("0", "1", "2"), CONFIG) == scales


def test_scales_that_are_given_are_kept_and_nothing_is_sampled_for_them(make_policy: Callable):
    policy: Any = make_policy()
    policy.sample = None
    config = FinetuneConfig(seconds=0.3, scales={"codes": (1.0, 2.0)})
    assert calibrate(policy, {"codes": Codes(mean)}, ("0",), config) == {"codes": (1.0, 2.0)}


def test_reward_without_spread_or_with_nan_is_refused(make_policy: Callable):
    with pytest.raises(UserError, match=r"1\.0 for every clip"):
        calibrate(make_policy(), {"codes": Codes(lambda codes: torch.ones(codes.shape[0]))}, ("0",), CONFIG)
    with pytest.raises(UserError, match="NaN"):
        calibrate(make_policy(), {"codes": Codes(lambda codes: codes[:, 0, 0] * float("nan"))}, ("0",), CONFIG)
