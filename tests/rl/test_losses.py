from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from musicrl.errors import UserError
from musicrl.policies.protocol import Rollout, Sampler
from musicrl.rewards.protocol import Generations
from musicrl.rl.losses import codebook_weights, policy_objective, value_loss
from musicrl.rl.step import Experience, accumulate_gradient

SAMPLER = Sampler(temperature=1.0)


def test_objective_by_hand():
    logps = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    kl = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    weights = torch.tensor([1.5, 0.5])
    # 2 · (1.5 · -3 + 0.5 · -7) / 4 = -4 and 1.0 / 4.
    objective = policy_objective(logps, torch.tensor([2.0]), kl, alpha=0.2, weights=weights)
    assert objective.item() == pytest.approx(0.8 * -4.0 - 0.2 * 0.25)


def test_one_advantage_a_clip_equals_the_same_at_every_code():
    generator = torch.Generator().manual_seed(0)
    logps, kl = torch.randn(2, 3, 2, 5, generator=generator)
    advantages = torch.randn(3, generator=generator)
    weights = torch.ones(2)
    spread = advantages[:, None, None].expand(3, 2, 5)
    torch.testing.assert_close(
        policy_objective(logps, advantages, kl, alpha=0.3, weights=weights),
        policy_objective(logps, spread, kl, alpha=0.3, weights=weights),
    )


def test_alpha_one_leaves_only_the_kl():
    logps, kl = torch.full((1, 2, 3), -7.0), torch.full((1, 2, 3), 0.5)
    objective = policy_objective(logps, torch.tensor([9.0]), kl, alpha=1.0, weights=torch.ones(2))
    assert objective.tolist() == [-0.5]


def test_value_loss_by_hand():
    values = torch.tensor([[[0.0, 1.0]], [[2.0, 2.0]]])
    assert value_loss(values, torch.tensor([1.0, 4.0])).tolist() == [0.5, 4.0]


def test_codebook_weights_have_mean_one():
    assert codebook_weights((3.0, 1.0), 2).tolist() == [1.5, 0.5]
    assert codebook_weights((), 3).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0)])
def test_codebook_weights_that_do_not_fit(weights: tuple[float, ...]):
    with pytest.raises(UserError, match="codebook_weights"):
        codebook_weights(weights, 2)


def experience(codes: torch.Tensor, rewards: torch.Tensor, prompt: str, group_size: int) -> Experience:
    prompts = (prompt,) * codes.shape[0]
    rollout = Rollout(prompts, codes, torch.zeros(codes.shape), SAMPLER, group_size)
    return Experience(rollout, Generations(prompts, codes, torch.zeros(len(prompts), 0), 1), rewards, {})


def test_rloo_gradient_by_hand(make_policy: Callable):
    policy = make_policy(prompts=("a",), codebooks=1, frames=1, size=2, spread=0.0)
    one_of_each = experience(torch.tensor([[[0]], [[1]]]), torch.tensor([1.0, 0.0]), "a", 2)
    metrics = accumulate_gradient(policy, None, one_of_each, alpha=0.2, weights=torch.ones(1), batch_size=2)
    # Advantages 1 and -1, d log p(0)/d logits = (0.5, -0.5): the mean is (0.5, -0.5), times 1 - alpha, to be descended.
    torch.testing.assert_close(policy.adapter.grad[0, 0, 2], torch.tensor([-0.4, 0.4]))
    assert metrics["kl"] == 0.0
    assert metrics["entropy"] == pytest.approx(0.6931, abs=1e-4)


def test_reinforce_gradient_by_hand(make_policy: Callable):
    policy = make_policy(prompts=("a",), codebooks=1, frames=1, size=2, spread=0.0)
    value = policy.value_network()
    value.load_state_dict({"bias": torch.tensor([[0.25]]), "codes": torch.zeros(2)})
    both = experience(torch.tensor([[[0]], [[0]]]), torch.tensor([1.0, 0.5]), "a", 1)
    metrics = accumulate_gradient(policy, value, both, alpha=0.0, weights=torch.ones(1), batch_size=1)
    # Advantages 0.75 and 0.25, both for code 0: mean 0.5 · (0.5, -0.5).
    torch.testing.assert_close(policy.adapter.grad[0, 0, 2], torch.tensor([-0.25, 0.25]))
    # d mean (V - R)² = 2 · mean(-0.75, -0.25).
    assert value.bias.grad.item() == pytest.approx(-1.0)
    assert metrics["value_loss"] == pytest.approx((0.75**2 + 0.25**2) / 2)


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce"])
def test_expected_gradient_is_that_of_the_expected_reward(make_policy: Callable, algorithm: str):
    """Over all groups a policy can draw, the gradient is that of E[reward], here by central differences."""
    policy = make_policy(prompts=("a",), codebooks=1, frames=2, size=3)
    with torch.no_grad():
        policy.adapter += 0.3 * torch.randn(policy.adapter.shape, generator=torch.Generator().manual_seed(1))
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))[:, None]
    rewards = torch.randn(9, generator=torch.Generator().manual_seed(2))

    def probabilities() -> torch.Tensor:
        return policy.score(("a",) * 9, every, sampler=SAMPLER).logps.double().sum(dim=(1, 2)).exp()

    value = None
    if algorithm == "reinforce":
        value = policy.value_network()
        state = {"bias": torch.tensor([[0.7, -0.4]]), "codes": torch.tensor([0.3, -0.2, 0.5])}
        value.load_state_dict(state)
    group_size = 2 if value is None else 1
    expected = torch.zeros_like(policy.adapter)
    shares = probabilities().detach()
    for group in itertools.product(range(9), repeat=group_size):
        index = torch.tensor(group)
        policy.adapter.grad = None
        drawn = experience(every[index], rewards[index], "a", group_size)
        accumulate_gradient(policy, value, drawn, alpha=0.0, weights=torch.ones(1), batch_size=8)
        expected += policy.adapter.grad * shares[index].prod()
    # The objective is a mean over the two codes of a clip, and the loss is its negative.
    expected *= -2

    step = 1e-3
    with torch.no_grad():
        for place in [(0, 0, 3, 0), (0, 0, 3, 2), (0, 1, 0, 1), (0, 1, 2, 2)]:
            policy.adapter[place] += step
            above = (probabilities() * rewards).sum()
            policy.adapter[place] -= 2 * step
            below = (probabilities() * rewards).sum()
            policy.adapter[place] += step
            assert expected[place].item() == pytest.approx(((above - below) / (2 * step)).item(), abs=1e-4)
    assert expected.abs().max() > 0.05
