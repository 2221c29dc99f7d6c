"""Semantic tokens: two codes of 1,024 for each 40 ms of music, in the place of AudioLM's w2v-BERT tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from musicrl import weights
from musicrl.audio.frames import FRAME_RATE, HOP, SAMPLE_RATE, frames
from musicrl.errors import UserError
from musicrl.kmeans import nearest
from musicrl.semantic.encoder import Encoder


class SemanticTokenizer(nn.Module):
    """Encoder and the centroids of its two outputs.

    Attributes:
        sample_rate: Hz of the audio it reads, 24,000.
        frame_rate: frames a second, 25.
        num_codebooks: 2; the first is tonal (pitch), the second texture (rhythm, drums, timbre, loudness).
        codebook_size: V.
    """

    sample_rate = SAMPLE_RATE
    frame_rate = FRAME_RATE
    num_codebooks = 2

    def __init__(self, *, width: int, depth: int, bottleneck: int, codebook_size: int) -> None:
        """Make a tokenizer with random encoder and zero centroids, to be trained or loaded."""
        super().__init__()
        self.codebook_size = codebook_size
        self.encoder = Encoder(width, depth, bottleneck)
        self.centroids: Tensor
        self.register_buffer("centroids", torch.zeros(2, codebook_size, bottleneck))

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Return semantic codes; the same audio gives the same codes.

        Args:
            audio: [B, N] float at 24 kHz, at least one frame (960 samples).

        Returns:
            [B, 2, T] int64, T = N // 960.

        Raises:
            UserError: the audio is shorter than one frame.
        """
        if audio.shape[-1] < HOP:
            raise UserError(f"audio of {audio.shape[-1]} samples is too short for semantic tokens; give at least {HOP}")
        return self.encode_frames(frames(audio))

    @torch.no_grad()
    def encode_frames(self, x: Tensor) -> Tensor:
        """Return codes [B, 2, T] of feature frames [B, T, 404] (musicrl.audio.frames)."""
        # Single precision: in bf16 a clip's codes would depend on which clips share its batch.
        return torch.stack([self._nearest(output, k) for k, output in enumerate(self.encoder(x))], dim=1)

    def _nearest(self, vectors: Tensor, codebook: int) -> Tensor:
        return nearest(vectors.flatten(0, 1), self.centroids[codebook]).view(vectors.shape[:2])


def load(name_or_path: str | Path = "semantic") -> SemanticTokenizer:
    """Return the tokenizer that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing or corrupt.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("semantic tokenizer", name_or_path):
        tokenizer = SemanticTokenizer(**{key: config[key] for key in ("width", "depth", "bottleneck", "codebook_size")})
        tokenizer.load_state_dict(tensors)
    return tokenizer.eval().requires_grad_(False)
