"""The audio side of MuLan: a transformer over feature frames, with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musicrl.audio.frames import WIDTH, standardise

PATCH = 4
"""Feature frames (40 ms) in one position of the transformer."""


class AudioTower(nn.Module):
    """Feature frames to an embedding."""

    def __init__(self, width: int, depth: int, heads: int, dim: int) -> None:
        """Make a tower of `depth` layers of `width` channels and `heads` heads with embeddings of `dim`."""
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(WIDTH, width // 2), nn.GELU())
        self.patch = nn.Linear(PATCH * (width // 2), width)
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, heads)
        self.exit = nn.Linear(width, dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Return embeddings [B, dim], not normalised, of feature frames [B, T, 404], T a multiple of 4."""
        x = self.patch(self.enter(standardise(frames)).unflatten(1, (-1, PATCH)).flatten(2))
        cosine, sine = _rotary(x.shape[1], x.shape[2] // self.pool.out_features)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        x = self.norm(x)
        share = self.pool(x).float().softmax(1)
        pooled = torch.einsum("bth,bthd->bhd", share, x.float().unflatten(-1, (self.pool.out_features, -1)))
        return self.exit(pooled.flatten(1))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = _turn(q, cosine, sine), _turn(k, cosine, sine)
        # Written out: for so few positions the gradient of the fused kernel takes longer on a CPU than all the rest.
        attended = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype) @ v
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def _rotary(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [length, width / 2] (RoFormer, Su et al. 2021)."""
    # Nothing lies farther apart than 62 positions, so the slowest wave need not be longer than about that.
    speeds = 100.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * speeds
    return angles.cos(), angles.sin()


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)
