"""MusicLM as one autoregressive stage: a temporal transformer over frames, a depth transformer over a frame's codes.

The hierarchy is that of RQ-Transformer (Lee et al. 2022) and UniAudio (Yang et al. 2023), which MusicRL names for its
merged semantic and coarse stage (MusicRL, section 3.1). Shapes: **B** batch, **K** codebooks, **T** frames, **V**
codebook size, **D** width, **R** levels of the MuLan quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl.musiclm.layers import EMBEDDING_STD, Block, initialise, rotary

ABSENT = -1
"""MuLan token of a level that is left out; a row of nothing else is the unconditional case."""


@dataclass(frozen=True)
class Shape:
    """Everything that fixes the shapes of a MusicLM; config.json of its weights carries it.

    Attributes:
        num_codebooks: K, semantic codebooks first.
        codebook_size: V.
        width: D of the temporal transformer.
        layers: blocks of the temporal transformer.
        heads: attention heads of the temporal transformer.
        depth_width: width of the depth transformer.
        depth_layers: blocks of the depth transformer.
        depth_heads: attention heads of the depth transformer.
        condition_levels: R.
        condition_size: codes of each MuLan level.
        condition_width: width of the MuLan embedding.
        max_frames: longest sequence trained on, hence the longest that positions may reach.
    """

    num_codebooks: int = 4
    codebook_size: int = 1024
    width: int = 384
    layers: int = 5
    heads: int = 6
    depth_width: int = 192
    depth_layers: int = 2
    depth_heads: int = 3
    condition_levels: int = 12
    condition_size: int = 1024
    condition_width: int = 128
    max_frames: int = 250


class Condition(nn.Module):
    """MuLan tokens to one vector: the sum of their codebook vectors (the quantized embedding) through a network.

    The codebooks are those of the MuLan quantizer and stay fixed. Learned per-code vectors would let the many nearly
    unique late codes name single training clips.
    """

    codebooks: Tensor

    def __init__(self, levels: int, size: int, embedding: int, width: int) -> None:
        """Make the layer with random codebooks.

        Args:
            levels: R.
            size: codes a level.
            embedding: width of a codebook vector.
            width: D of what it is added to.
        """
        super().__init__()
        self.register_buffer("codebooks", torch.randn(levels, size, embedding) / embedding**0.5)
        # Unit entries, as those of an embedding; at 0 the stream would start as nothing.
        self.null = nn.Parameter(torch.randn(embedding))
        self.fc_in = nn.Linear(embedding, width)
        self.fc_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [B, R] (`ABSENT` where left out) to [B, D]."""
        present = tokens >= 0
        levels = torch.arange(tokens.shape[1], device=tokens.device)
        summed = (self.codebooks[levels, tokens.clamp(min=0)] * present[..., None]).sum(1)
        # Embeddings have unit norm; the network wants entries of unit variance.
        summed = summed * self.null.shape[0] ** 0.5
        embedding = torch.where(present.any(1, keepdim=True), summed, self.null)
        return self.fc_out(F.gelu(self.fc_in(embedding)))


class Trunk(nn.Module):
    """Temporal transformer: one state a frame. Policy, value network and preference reward all start from it."""

    def __init__(self, shape: Shape) -> None:
        """Make a trunk with random weights."""
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.num_codebooks * shape.codebook_size, shape.width)
        self.start = nn.Parameter(torch.randn(shape.width) * EMBEDDING_STD)
        self.condition = Condition(shape.condition_levels, shape.condition_size, shape.condition_width, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads, causal=True) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        initialise(self, shape.layers)

    def states(self, codes: Tensor, condition: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the state before each frame.

        Args:
            codes: [B, K, T] int64.
            condition: [B, R] MuLan tokens.
            keep: [B, K, T] float weight of each code's embedding, 0 to hide it; None shows all.

        Returns:
            [B, T, D]; entry t has seen the condition and codes of frames before t.
        """
        return self._run(codes[..., :-1], condition, None if keep is None else keep[..., :-1])

    def hidden(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the state after each frame.

        Args:
            codes: [B, K, T] int64.
            condition: [B, R] MuLan tokens.

        Returns:
            [B, T, D]; entry t has seen the condition and codes of frames up to and with t.
        """
        return self._run(codes, condition)[:, 1:]

    def frames(self, codes: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the sum of the code embeddings of each frame, [B, T, D] for codes [B, K, T]; `keep` as in `states`."""
        batch, books, length = codes.shape
        offsets = torch.arange(books, device=codes.device) * self.shape.codebook_size
        index = (codes + offsets[:, None]).transpose(1, 2).reshape(-1, books)
        share = None if keep is None else keep.transpose(1, 2).reshape(-1, books)
        summed = F.embedding_bag(index, self.embed.weight, mode="sum", per_sample_weights=share)
        return summed.view(batch, length, self.shape.width)

    def _run(self, codes: Tensor, condition: Tensor, keep: Tensor | None = None) -> Tensor:
        start = self.start.expand(codes.shape[0], 1, -1)
        x = torch.cat([start, self.frames(codes, keep)], 1) + self.condition(condition)[:, None]
        table = rotary(torch.arange(x.shape[1], device=x.device), self.shape.width // self.shape.heads)
        for block in self.blocks:
            x = block(x, table)
        return self.norm(x)


class Depth(nn.Module):
    """Depth transformer over the K codes of one frame, given the temporal state before it."""

    def __init__(self, shape: Shape) -> None:
        """Make a depth transformer with random weights."""
        super().__init__()
        self.shape = shape
        width = shape.depth_width
        self.project = nn.Linear(shape.width, width, bias=False)
        self.position = nn.Parameter(torch.randn(shape.num_codebooks, width) * EMBEDDING_STD)
        self.embed = nn.Embedding(max(shape.num_codebooks - 1, 1) * shape.codebook_size, width)
        self.blocks = nn.ModuleList(Block(width, shape.depth_heads, causal=True) for _ in range(shape.depth_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        initialise(self, shape.depth_layers)
        self.heads = nn.Parameter(torch.randn(shape.num_codebooks, width, shape.codebook_size) * 0.02)

    def forward(self, states: Tensor, codes: Tensor) -> Tensor:
        """Return logits [M, K, V] of the codes [M, K] of M frames with states [M, D].

        The logits of codebook k have seen the state and the codes before k.
        """
        offsets = torch.arange(codes.shape[1] - 1, device=codes.device) * self.shape.codebook_size
        before = F.pad(self.embed(codes[:, :-1] + offsets), (0, 0, 1, 0))
        x = before + self.position + self.project(states)[:, None]
        for block in self.blocks:
            x = block(x, None)
        return torch.bmm(self.norm(x).transpose(0, 1), self.heads).transpose(0, 1)


class MusicLM(nn.Module):
    """Hierarchical token model of music, conditioned on MuLan tokens."""

    def __init__(self, shape: Shape) -> None:
        """Make a model with random weights."""
        super().__init__()
        self.shape = shape
        self.trunk = Trunk(shape)
        self.depth = Depth(shape)

    def forward(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return logits [B, K, T, V] of codes [B, K, T] under teacher forcing.

        Args:
            codes: [B, K, T] int64.
            condition: [B, R] MuLan tokens.

        Returns:
            Logits of frame t, codebook k, given the condition, all frames before t and codebooks before k of frame t.
        """
        batch, books, frames = codes.shape
        states = self.trunk.states(codes, condition)
        logits = self.depth(states.flatten(0, 1), codes.transpose(1, 2).reshape(-1, books))
        return logits.view(batch, frames, books, -1).transpose(1, 2)
