from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.kmeans import kmeans, nearest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nearest_on_hand_made_vectors() -> None:
    centroids = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    points = torch.tensor([[1.9, 0.0], [2.1, 0.0], [0.0, 1.6], [5.0, -9.0]])
    assert nearest(points, centroids, chunk=3).tolist() == [0, 1, 2, 1]


def test_nearest_takes_the_lowest_of_equal_centroids() -> None:
    assert nearest(torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [0]


def test_finds_separate_clusters_exactly() -> None:
    means = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    offsets = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    points = (means[:, None] + offsets).flatten(0, 1)
    found = kmeans(points, 4, iterations=10, generator=generator())
    assert sorted(found.round(decimals=4).tolist()) == sorted(means.tolist())


def test_no_cluster_stays_empty() -> None:
    points = torch.cat([torch.zeros(500, 2), torch.arange(1.0, 8.0)[:, None].expand(7, 2) * 50])
    found = kmeans(points, 8, iterations=10, generator=generator())
    assert len(nearest(points, found).unique()) == 8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 12))
def test_same_seed_same_centroids_and_each_is_the_mean_of_its_points(seed: int, count: int) -> None:
    points = torch.randn(200, 3, generator=generator(seed))
    found = kmeans(points, count, iterations=60, generator=generator(seed))
    assert torch.equal(found, kmeans(points, count, iterations=60, generator=generator(seed)))
    labels = nearest(points, found)
    for k in labels.unique().tolist():
        torch.testing.assert_close(points[labels == k].mean(0), found[k], atol=1e-4, rtol=1e-4)


def test_another_seed_gives_other_centroids() -> None:
    points = torch.randn(300, 3, generator=generator())
    a, b = (kmeans(points, 30, iterations=3, generator=generator(seed)) for seed in (1, 2))
    assert not torch.equal(a, b)


def test_fewer_points_than_centroids_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 centroids need at least as many points, got 4"):
        kmeans(torch.zeros(4, 2), 5, iterations=1, generator=generator())
