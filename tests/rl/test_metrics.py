from __future__ import annotations

import pytest
import torch

from musicrl.rewards.protocol import Generations
from musicrl.rl.metrics import Phases, diversity, explained_variance, hamming


def clips(codes: torch.Tensor | None) -> Generations:
    return Generations(("a",) * 4, codes, torch.zeros(4, 0), 1)


def test_hamming_and_diversity_by_hand():
    codes = torch.tensor([[[1, 2], [3, 4]], [[1, 2], [3, 5]], [[0, 0], [0, 0]], [[9, 9], [9, 9]]])
    distances = hamming(clips(codes), 2)
    assert distances.tolist() == [[[0.0, 0.25], [0.25, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]
    assert diversity(distances) == pytest.approx((0.25 + 1.0) / 2)
    assert diversity(hamming(clips(codes), 1)) == 0.0


def test_hamming_needs_codes():
    with pytest.raises(ValueError, match="codes"):
        hamming(clips(None), 2)


def test_explained_variance():
    actual = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(actual + 5, actual) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(3), actual) == pytest.approx(0.0)
    assert explained_variance(actual, torch.ones(3)) == 0.0


def test_phases_add_up():
    phases = Phases(torch.device("cpu"))
    for name in ("a", "b", "a"):
        with phases(name):
            pass
    assert set(phases.seconds) == {"a", "b"}
    assert all(seconds >= 0 for seconds in phases.seconds.values())
