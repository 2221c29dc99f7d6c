"""Reinforcement learning from rewards: pure functions on tensors and one loop; knows only `Policy` and `Reward`."""

from musicrl.rl.calibrate import calibrate
from musicrl.rl.loop import Outcome, finetune

__all__ = ["Outcome", "calibrate", "finetune"]
