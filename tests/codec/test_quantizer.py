from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrl.codec.codebooks import DECAY, MovingAverages, initialise
from musicrl.codec.quantizer import PREFIX_WEIGHTS, PREFIXES, ResidualQuantizer, commitment, straight_through


def by_hand() -> ResidualQuantizer:
    quantizer = ResidualQuantizer(2, 2, 2)
    quantizer.codebooks.copy_(torch.tensor([[[0.0, 0.0], [10.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]))
    return quantizer


def random(levels: int, size: int, dim: int, seed: int) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(levels, size, dim)
    quantizer.codebooks.copy_(torch.randn(levels, size, dim, generator=torch.Generator().manual_seed(seed)))
    return quantizer


def test_each_level_quantizes_what_the_ones_before_left() -> None:
    latents = torch.tensor([[[10.9, 0.1], [0.2, 1.3], [9.9, 0.8]]])
    codes, sums = by_hand().quantize(latents)
    # (10.9, .1) - (10, 0) = (.9, .1), closest (1, 0); (.2, 1.3) closest (0, 1); (9.9, .8) - (10, 0) closest (0, 1).
    assert codes.tolist() == [[[1, 0, 1], [1, 0, 0]]]
    assert sums[0, 0].tolist() == [[10, 0], [0, 0], [10, 0]]
    assert sums[1, 0].tolist() == [[11, 0], [0, 1], [10, 1]]
    assert by_hand().decode(codes)[0].tolist() == [[11, 0], [0, 1], [10, 1]]


@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 4), st.integers(0, 1000))
def test_decoding_a_prefix_gives_the_sum_that_quantizing_kept(levels: int, size: int, dim: int, seed: int) -> None:
    quantizer = random(levels, size, dim, seed)
    latents = 3 * torch.randn(2, 7, dim, generator=torch.Generator().manual_seed(seed + 1))
    codes, sums = quantizer.quantize(latents)
    assert codes.shape == (2, levels, 7) and codes.dtype == torch.int64
    for k in range(1, levels + 1):
        assert torch.allclose(quantizer.decode(codes[:, :k]), sums[k - 1], atol=1e-5)


@given(st.integers(0, 1000))
def test_the_chosen_vector_is_the_closest(seed: int) -> None:
    quantizer = random(1, 6, 3, seed)
    latents = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(seed + 1))
    distances = torch.cdist(latents[0], quantizer.codebooks[0])
    assert torch.equal(quantizer.encode(latents)[0, 0], distances.argmin(1))


def test_straight_through_takes_each_items_prefix_and_passes_the_gradient_unchanged() -> None:
    latents = torch.tensor([[[10.9, 0.1]], [[10.9, 0.1]]], requires_grad=True)
    _, sums = by_hand().quantize(latents)
    out = straight_through(latents, sums, torch.tensor([1, 2]))
    assert out.flatten().tolist() == pytest.approx([10, 0, 11, 0])
    weights = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    (out * weights).sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, weights)


def test_commitment_is_the_mean_squared_distance_over_levels_in_use() -> None:
    latents = torch.tensor([[[10.9, 0.1]], [[10.9, 0.1]]], requires_grad=True)
    _, sums = by_hand().quantize(latents)
    # Level 1 leaves (.9, .1): (.81 + .01) / 2 = .41; level 2 leaves (-.1, .1): .01. Items use 1 and 2 levels.
    loss = commitment(latents, sums, torch.tensor([1, 2]))
    assert loss.item() == pytest.approx((0.41 + (0.41 + 0.01) / 2) / 2)
    loss.backward()
    # d/dx of item 1: 2 * .9 / 2 dims / 2 items = .45
    assert latents.grad is not None and latents.grad[0, 0].tolist() == pytest.approx([0.45, 0.05])


def test_kmeans_start_uses_every_code_and_each_level_lowers_the_error() -> None:
    latents = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    quantizer = ResidualQuantizer(3, 64, 4)
    initialise(quantizer, latents, torch.Generator().manual_seed(1))
    codes, sums = quantizer.quantize(latents[None])
    assert [len(level.unique()) for level in codes[0]] == [64, 64, 64]
    errors = [float((latents - total[0]).square().mean()) for total in sums]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_moving_averages_follow_the_batch_and_replace_dead_codes() -> None:
    quantizer = ResidualQuantizer(1, 2, 1)
    quantizer.codebooks.copy_(torch.tensor([[[0.0], [10.0]]]))
    averages = MovingAverages(quantizer)
    latents = torch.tensor([[[1.0], [2.0]]])
    codes, sums = quantizer.quantize(latents)
    assert averages.update(latents, codes, sums, torch.Generator().manual_seed(0)) == 0
    # Code 0 was chosen twice, for 1 and 2: (.99 * 0 + .01 * 3) / (.99 * 1 + .01 * 2) = .03 / 1.01.
    assert quantizer.codebooks[0, 0].item() == pytest.approx((1 - DECAY) * 3 / (DECAY + (1 - DECAY) * 2))
    assert quantizer.codebooks[0, 1].item() == pytest.approx(10.0)
    replaced = 0
    for step in range(1000):
        codes, sums = quantizer.quantize(latents)
        replaced += averages.update(latents, codes, sums, torch.Generator().manual_seed(step))
    assert replaced >= 1
    assert sorted(quantizer.codebooks.flatten().tolist()) == pytest.approx([1.0, 2.0], abs=0.1)


def test_prefix_lengths_and_their_weights_belong_together() -> None:
    assert len(PREFIXES) == len(PREFIX_WEIGHTS) and sum(PREFIX_WEIGHTS) == pytest.approx(1.0)
