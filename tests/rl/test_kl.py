from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrl.rl.kl import divergence, entropy

INF = float("inf")


def log_probs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log().view(1, 1, 1, -1)


def test_divergence_by_hand():
    kl = divergence(log_probs(0.5, 0.5), log_probs(0.25, 0.75))
    assert kl.shape == (1, 1, 1)
    assert kl.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_it_is_weighted_by_the_policy_not_a_plain_sum_of_log_ratios():
    # The sum as MusicRL prints it would be log(.5/.25) + log(.5/.75) = 0.2877.
    assert divergence(log_probs(0.5, 0.5), log_probs(0.25, 0.75)).item() == pytest.approx(0.2877 / 2, abs=1e-4)
    assert divergence(log_probs(0.9, 0.1), log_probs(0.1, 0.9)).item() == pytest.approx(0.8 * math.log(9), rel=1e-5)


logits = st.lists(st.floats(-20, 20), min_size=5, max_size=5)


@given(logits, logits)
def test_divergence_is_not_negative_and_zero_to_itself(first: list[float], second: list[float]):
    p = torch.tensor(first, dtype=torch.float64).log_softmax(-1)
    q = torch.tensor(second, dtype=torch.float64).log_softmax(-1)
    assert divergence(p, q).item() >= -1e-12
    assert divergence(p, p).item() == 0.0


def test_truncated_codes_count_nothing_and_have_no_nan_gradient():
    policy = torch.tensor([[[[0.0, 0.0, -INF]]]], requires_grad=True)
    reference = torch.tensor([[[[0.0, math.log(3.0), -INF]]]]).log_softmax(-1)
    kl = divergence(policy.log_softmax(-1), reference)
    assert kl.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    kl.sum().backward()
    assert policy.grad is not None and torch.isfinite(policy.grad).all()
    assert divergence(log_probs(0.5, 0.5), log_probs(1.0, 0.0)).item() == INF


def test_gradient_matches_finite_differences():
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(2, 2, 2, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    reference = torch.randn(2, 2, 2, 4, dtype=torch.float64, generator=generator).log_softmax(-1)
    assert torch.autograd.gradcheck(lambda x: divergence(x.log_softmax(-1), reference), (policy,))


def test_entropy_of_uniform_certain_and_truncated():
    assert entropy(log_probs(*[0.125] * 8)).item() == pytest.approx(math.log(8))
    assert entropy(log_probs(1.0, 0.0)).item() == 0.0
    assert entropy(log_probs(0.5, 0.5, 0.0)).item() == pytest.approx(math.log(2))
