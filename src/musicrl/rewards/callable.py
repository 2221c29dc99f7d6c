"""Any Python function as a reward."""

from __future__ import annotations

import torch
from torch import Tensor

from musicrl.rewards.protocol import Generations, Reward, RewardFunction


class _FunctionReward:
    def __init__(self, function: RewardFunction, name: str) -> None:
        self.name = name
        self._function = function

    def __call__(self, batch: Generations) -> Tensor:
        scores = self._function(batch.prompts, batch.audio, batch.sample_rate)
        return torch.tensor([float(score) for score in scores], dtype=torch.float32, device=batch.audio.device)


def from_callable(function: RewardFunction, name: str | None = None) -> Reward:
    """Return a reward that calls `function(prompts, audio[B, N], sample_rate)` for B floats, higher is better.

    Nothing is caught here: a function that raises, returns NaN or the wrong number of scores costs the finetuning loop
    one skipped step, and ends it after five in a row.

    Args:
        function: the scores; a list, a tuple, or an array or tensor [B].
        name: name in the metrics; the function's own if None.
    """
    return _FunctionReward(function, name or getattr(function, "__name__", "reward"))
