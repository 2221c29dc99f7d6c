"""Where semantic and acoustic codes stand in a frame of MusicLM's codes.

A frame lasts 40 ms. It holds the semantic codes of that frame, then the first L codec levels of the two 20 ms codec
frames in it, the earlier one first: with L = 1, K = 4, [tonal, texture, level 1 at 2t, level 1 at 2t + 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

FRAME_RATE = 25.0
SEMANTIC = 2
"""Semantic codebooks."""


def join(semantic: Tensor, acoustic: Tensor) -> Tensor:
    """Return codes [B, 2 + 2·L, T] from semantic codes [B, 2, T] and acoustic codes [B, L, 2·T]."""
    batch, levels, frames = acoustic.shape
    pairs = acoustic.view(batch, levels, frames // 2, 2).permute(0, 3, 1, 2)
    return torch.cat([semantic, pairs.reshape(batch, 2 * levels, frames // 2)], 1)


def split(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return semantic codes [B, 2, T] and acoustic codes [B, L, 2·T] of codes [B, 2 + 2·L, T]."""
    batch, books, frames = codes.shape
    pairs = codes[:, SEMANTIC:].reshape(batch, 2, (books - SEMANTIC) // 2, frames)
    return codes[:, :SEMANTIC], pairs.permute(0, 2, 3, 1).reshape(batch, -1, 2 * frames)
