"""Advantages: how much better a clip did than expected.

Shapes: **B** clips, **G** samples per prompt (the G samples of one prompt stand next to each other), **K** codebooks,
**T** frames. The reward comes once, at the end of the clip, and is not discounted.
"""

from __future__ import annotations

from torch import Tensor


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Subtract from each reward the mean of the other samples of its prompt (RLOO; Kool et al. 2019).

    Args:
        rewards: [B].
        group_size: G, at least 2; B is a multiple of it.

    Returns:
        [B] advantages; those of one prompt sum to 0.
    """
    groups = rewards.reshape(-1, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)


def reward_to_go(rewards: Tensor, values: Tensor) -> Tensor:
    """Subtract the predicted return from the return at each code (MusicRL, section 3.2: REINFORCE with V as baseline).

    Args:
        rewards: [B]; with one reward at the end it is the return at every code.
        values: [B, K, T] predictions V(s).

    Returns:
        [B, K, T] advantages, without gradient towards the values.
    """
    return rewards[:, None, None] - values.detach()
