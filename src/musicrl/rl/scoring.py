"""Rewards of a batch, checked: user code runs here, so every way it can fail becomes one exception."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from musicrl.errors import UserError
from musicrl.rewards.protocol import Generations, Reward


class StepError(Exception):
    """This step gives no usable gradient; the loop skips and counts it. The message says why."""


@runtime_checkable
class Combined(Protocol):
    """A reward made of named parts, so that each is computed once and logged."""

    def parts(self, batch: Generations) -> dict[str, Tensor]:
        """Return the rewards [B] of each part, in its own units."""
        ...

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the rewards [B] made of `parts`."""
        ...


def score(reward: Reward, batch: Generations) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the rewards of a batch and the parts they are made of.

    Args:
        reward: any reward; one with parts is asked for them once.
        batch: B clips.

    Returns:
        Rewards [B] float32, and rewards [B] by name of part.

    Raises:
        StepError: the reward raised, or gave a wrong shape or a value that is not finite.
        UserError: passed through.
    """
    try:
        with torch.no_grad():
            parts = reward.parts(batch) if isinstance(reward, Combined) else {reward.name: reward(batch)}
            for name, values in parts.items():
                _check(name, values, len(batch.prompts))
            total = reward.combine(parts) if isinstance(reward, Combined) else parts[reward.name]
            _check(reward.name, total, len(batch.prompts))
    except (StepError, UserError):
        raise
    except Exception as error:
        # Whatever a user's reward raises must cost a step, not hours of training.
        raise StepError(f"reward {reward.name} raised {type(error).__name__}: {error}") from error
    return total.float(), parts


def _check(name: str, values: object, count: int) -> None:
    if not isinstance(values, Tensor) or values.shape != (count,):
        found = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise StepError(f"reward {name} returned {found} for {count} clips, not [{count}]")
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise StepError(f"reward {name} is NaN or infinite for {bad} of {count} clips")
