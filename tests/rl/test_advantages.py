from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrl.rl.advantages import leave_one_out, reward_to_go


def test_leave_one_out_by_hand():
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0, 4.0, 10.0])
    # Means of the others: 2.5, 2, 1.5 and 7, 7, 4.
    assert leave_one_out(rewards, 3).tolist() == [-1.5, 0.0, 1.5, -3.0, -3.0, 6.0]


def test_two_samples_get_their_difference():
    assert leave_one_out(torch.tensor([0.25, 1.0]), 2).tolist() == [-0.75, 0.75]


@given(
    st.integers(2, 6),
    st.lists(st.integers(-50, 50), min_size=6, max_size=6),
    st.integers(-30, 30),
)
def test_leave_one_out_ignores_what_a_prompt_adds_to_all_its_samples(group_size: int, values: list[int], shift: int):
    rewards = torch.tensor(values * group_size, dtype=torch.float64)
    groups = len(rewards) // group_size
    shifts = (torch.arange(groups) * shift).repeat_interleave(group_size)
    advantages = leave_one_out(rewards, group_size)
    torch.testing.assert_close(leave_one_out(rewards + shifts, group_size), advantages)
    torch.testing.assert_close(advantages.view(groups, -1).sum(1), torch.zeros(groups, dtype=torch.float64))


def test_reward_to_go_has_no_gradient_to_the_values():
    values = torch.tensor([[[0.5, 1.0]], [[0.0, -1.0]]], requires_grad=True)
    advantages = reward_to_go(torch.tensor([1.0, 2.0]), values)
    assert advantages.tolist() == [[[0.5, 0.0]], [[2.0, 3.0]]]
    assert not advantages.requires_grad
