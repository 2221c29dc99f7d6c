"""Residual vector quantization (SoundStream, Zeghidour et al. 2021, section III.C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musicrl.kmeans import nearest

PREFIXES = (1, 2, 4, 12)
PREFIX_WEIGHTS = (0.25, 0.15, 0.2, 0.4)
"""Quantizer dropout: how often a training crop is decoded from so many levels. Level 1 is what token models predict."""


class ResidualQuantizer(nn.Module):
    """K codebooks; each quantizes what the ones before it left over, so any prefix of levels can be decoded."""

    codebooks: Tensor

    def __init__(self, num_codebooks: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, dim))

    def encode(self, latents: Tensor) -> Tensor:
        """Return the codes [B, K, T] int64 of latents [B, T, D]."""
        return self.quantize(latents)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the latents [B, T, D] of the first k levels' codes [B, k, T], k <= K."""
        latents = self.codebooks[0][codes[:, 0]]
        for level in range(1, codes.shape[1]):
            latents = latents + self.codebooks[level][codes[:, level]]
        return latents

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize and keep what every prefix of levels gives.

        Args:
            latents: [B, T, D].

        Returns:
            Codes [B, K, T] int64, and the sums of the first 1, 2, ... K code vectors [K, B, T, D]. No gradient.
        """
        residual = latents.detach().float()
        total = torch.zeros_like(residual)
        codes: list[Tensor] = []
        sums: list[Tensor] = []
        for codebook in self.codebooks:
            chosen = nearest(residual.flatten(0, 1), codebook).view(residual.shape[:2])
            vectors = codebook[chosen]
            residual, total = residual - vectors, total + vectors
            codes.append(chosen)
            sums.append(total)
        return torch.stack(codes, 1), torch.stack(sums)


def straight_through(latents: Tensor, sums: Tensor, levels: Tensor) -> Tensor:
    """Replace latents by what a prefix of levels gives, with the gradient of the identity.

    Args:
        latents: [B, T, D].
        sums: [K, B, T, D] from `ResidualQuantizer.quantize`.
        levels: [B] int64, how many levels each item uses (quantizer dropout).

    Returns:
        [B, T, D].
    """
    quantized = sums[levels - 1, torch.arange(len(levels), device=levels.device)]
    return latents + (quantized - latents).detach()


def commitment(latents: Tensor, sums: Tensor, levels: Tensor) -> Tensor:
    """Return the mean squared distance between latents and each prefix in use, averaged over levels and items.

    Args:
        latents: [B, T, D].
        sums: [K, B, T, D], constants.
        levels: [B] int64.
    """
    distances = (latents - sums).square().mean(dim=(2, 3))
    used = torch.arange(len(sums), device=levels.device)[:, None] < levels
    return (distances * used).sum(0).div(levels).mean()
