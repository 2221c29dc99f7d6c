"""How codebooks are learned: k-means for a start, then moving averages of what each code was chosen for."""

from __future__ import annotations

import torch
from torch import Tensor

from musicrl.codec.quantizer import ResidualQuantizer
from musicrl.kmeans import kmeans, nearest

DECAY = 0.99
DEAD = 0.05
"""A code chosen less often than this many times a step, on average, is moved."""


@torch.no_grad()
def initialise(quantizer: ResidualQuantizer, latents: Tensor, generator: torch.Generator, iterations: int = 10) -> None:
    """Set each level's codebook to the k-means centroids of what the levels before it leave over.

    From random codebooks a residual quantizer collapses to few codes; from these all are in use at the first step.

    Args:
        quantizer: filled in place.
        latents: [M, D], M at least the codebook size.
        generator: source of all randomness.
        iterations: of Lloyd's algorithm.
    """
    residual = latents.float()
    for codebook in quantizer.codebooks:
        codebook.copy_(kmeans(residual, len(codebook), iterations=iterations, generator=generator))
        residual = residual - codebook[nearest(residual, codebook)]


class MovingAverages:
    """Exponential moving averages of codebooks (van den Oord et al. 2017, appendix A.1) that replace dead codes.

    Args:
        quantizer: its codebooks are changed in place by `update`.
    """

    def __init__(self, quantizer: ResidualQuantizer) -> None:
        self._codebooks = quantizer.codebooks
        self.counts = torch.ones(self._codebooks.shape[:2])
        self.sums = self._codebooks.clone()

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, sums: Tensor, generator: torch.Generator) -> int:
        """Move the codebooks towards a batch.

        Args:
            latents: [B, T, D] that were quantized.
            codes: [B, K, T] chosen for them.
            sums: [K, B, T, D] what each prefix of levels gave.
            generator: chooses the vectors that replace dead codes.

        Returns:
            How many codes were replaced, over all levels.
        """
        replaced = 0
        residual = latents.detach().flatten(0, 1)
        for level in range(len(self._codebooks)):
            chosen = codes[:, level].flatten()
            counts, total = self.counts[level], self.sums[level]
            counts.mul_(DECAY).add_(torch.bincount(chosen, minlength=len(counts)), alpha=1.0 - DECAY)
            total.mul_(DECAY).add_(torch.zeros_like(total).index_add_(0, chosen, residual), alpha=1.0 - DECAY)
            dead = torch.nonzero(counts < DEAD)[:, 0]
            if len(dead):
                # A batch may be smaller than the number of dead codes; the rest waits for the next one.
                dead = dead[: len(residual)]
                counts[dead] = 1.0
                total[dead] = residual[torch.randperm(len(residual), generator=generator)[: len(dead)]]
                replaced += len(dead)
            self._codebooks[level].copy_(total / counts[:, None])
            residual = latents.detach().flatten(0, 1) - sums[level].flatten(0, 1)
        return replaced
