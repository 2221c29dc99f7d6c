"""The border between generated clips and what scores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Generations:
    """Clips to be scored: decoded once, loudness-matched once, shared by all rewards.

    Attributes:
        prompts: B texts.
        codes: [B, K, T] int64 codes of the policy, or None for clips that did not come from it.
        audio: [B, N] float32, loudness-matched (musicrl.audio.loudness.match).
        sample_rate: Hz.
    """

    prompts: Sequence[str]
    codes: Tensor | None
    audio: Tensor
    sample_rate: int


@runtime_checkable
class Reward(Protocol):
    """Scores clips; deterministic: the same clip and prompt give the same score."""

    name: str

    def __call__(self, batch: Generations) -> Tensor:
        """Return rewards [B] float32, higher is better."""
        ...


RewardFunction = Callable[[Sequence[str], Tensor, int], Sequence[float]]
"""A plain callable `(prompts, audio[B, N], sample_rate) -> B floats` is also a reward (musicrl.rewards.callable)."""
