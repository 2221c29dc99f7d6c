"""Exponential moving average of weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Averaged(nn.Module, Generic[ModuleT]):
    """A model in training and the running average of its weights, saved together.

    Attributes:
        model: what the optimizer changes.
        average: what is evaluated and shipped; it has no gradients.
    """

    EVERY = 8

    def __init__(self, model: ModuleT, decay: float = 0.995) -> None:
        """Start the average at the model's weights.

        Args:
            model: what is trained.
            decay: weight of the old average at each step.
        """
        super().__init__()
        self.model: ModuleT = model
        self.average: ModuleT = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps; every eighth step is enough and saves the memory traffic.

        The average starts young: its decay grows as (1 + step) / (10 + step) until it reaches its own.
        """
        if step % self.EVERY:
            return
        decay = min(self.decay, (1 + step) / (10 + step)) ** self.EVERY
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
