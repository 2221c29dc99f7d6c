"""Residual quantization of MuLan embeddings to conditioning tokens (MusicLM, Agostinelli et al. 2023, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from musicrl.kmeans import kmeans, nearest


def fit(points: Tensor, levels: int, size: int, *, iterations: int, generator: torch.Generator) -> Tensor:
    """Return codebooks [levels, size, D]: k-means of the points, then of what is left, level by level.

    Args:
        points: [M, D] float, M >= size.
        levels: number of codebooks.
        size: codes in each.
        iterations: of k-means.
        generator: source of all randomness.
    """
    residual = points.float()
    books: list[Tensor] = []
    for _ in range(levels):
        book = kmeans(residual, size, iterations=iterations, generator=generator)
        residual = residual - book[nearest(residual, book)]
        books.append(book)
    return torch.stack(books)


def quantize(points: Tensor, codebooks: Tensor) -> Tensor:
    """Return codes [M, levels] int64 of points [M, D], each the nearest to what the levels before it left."""
    residual = points.float()
    codes: list[Tensor] = []
    for book in codebooks:
        codes.append(nearest(residual, book))
        residual = residual - book[codes[-1]]
    return torch.stack(codes, 1)


def dequantize(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return the points [M, D] that the first k levels of codes [M, k] stand for."""
    return torch.stack([codebooks[level][codes[:, level]] for level in range(codes.shape[1])]).sum(0)
