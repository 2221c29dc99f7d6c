"""MuLan (Huang et al. 2022): one embedding space for music and for what people say about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl import weights
from musicrl.audio.frames import FRAME_RATE, HOP, SAMPLE_RATE, frames
from musicrl.errors import UserError
from musicrl.mulan import rvq
from musicrl.mulan.audio import PATCH, AudioTower
from musicrl.mulan.text import TextTower, pad, token_states

WINDOW = 10 * int(FRAME_RATE)
WINDOW_HOP = 5 * int(FRAME_RATE)
SHORTEST = 5 * int(FRAME_RATE) // PATCH * PATCH
"""Frames of the shortest crop in training; clips shorter than that are repeated until they fill it."""


class MuLan(nn.Module):
    """Two towers, the centre of each one's embeddings, and the codebooks of the conditioning tokens.

    The centres close the modality gap (Liang et al. 2022): each side's mean over the training clips is taken off before
    embeddings are compared, so that only what distinguishes clips is left.

    Attributes:
        sample_rate: Hz of the audio it reads, 24,000.
        dim: width of an embedding.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, *, width: int, depth: int, heads: int, text_width: int, dim: int, levels: int, codebook_size: int
    ) -> None:
        """Make a model with random towers and zero codebooks, to be trained or loaded."""
        super().__init__()
        self.dim = dim
        self.audio = AudioTower(width, depth, heads, dim)
        self.text = TextTower(text_width, heads, dim)
        self.audio_centre: Tensor
        self.text_centre: Tensor
        self.codebooks: Tensor
        self.register_buffer("audio_centre", torch.zeros(dim))
        self.register_buffer("text_centre", torch.zeros(dim))
        self.register_buffer("codebooks", torch.zeros(levels, codebook_size, dim))

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings [B, 128] of unit norm for B texts; the same text gives the same embedding.

        Raises:
            UserError: the sentence encoder is not installed.
        """
        return self.embed_states(token_states(texts))

    @torch.no_grad()
    def embed_states(self, states: Sequence[Tensor]) -> Tensor:
        """Return embeddings [B, 128] of unit norm for token states [L, 384] of B texts (`text.token_states`)."""
        parts = [self.text(*pad(states[i : i + 64])) for i in range(0, len(states), 64)]
        return F.normalize(F.normalize(torch.cat(parts), dim=-1) - self.text_centre, dim=-1)

    @torch.no_grad()
    def embed_audio(self, audio: Tensor) -> Tensor:
        """Return one embedding a clip: the mean over 10 s windows every 5 s, of unit norm (MusicRL, section 3.2).

        The last window ends with the clip. A clip shorter than 10 s is one window; one shorter than 5 s is repeated.

        Args:
            audio: [B, N] float at 24 kHz, at least one frame (960 samples).

        Returns:
            [B, 128].

        Raises:
            UserError: the audio is shorter than one frame.
        """
        if audio.shape[-1] < HOP:
            raise UserError(f"audio of {audio.shape[-1]} samples is too short for an embedding; give at least {HOP}")
        return self.embed_frames(frames(audio))

    @torch.no_grad()
    def embed_frames(self, x: Tensor) -> Tensor:
        """Return embeddings [B, 128] of feature frames [B, T, 404] (musicrl.audio.frames), as `embed_audio` does."""
        if x.shape[1] < SHORTEST:
            x = x.repeat(1, -(-SHORTEST // x.shape[1]), 1)[:, :SHORTEST]
        length = min(WINDOW, x.shape[1]) // PATCH * PATCH
        windows = torch.stack([x[:, start : start + length] for start in window_starts(x.shape[1])], 1)
        embedded = torch.cat([self.audio(part) for part in windows.flatten(0, 1).split(64)])
        centred = F.normalize(F.normalize(embedded, dim=-1) - self.audio_centre, dim=-1)
        return F.normalize(centred.view(*windows.shape[:2], -1).mean(1), dim=-1)

    @torch.no_grad()
    def tokens(self, embedding: Tensor) -> Tensor:
        """Return the conditioning tokens [B, 12] int64 of embeddings [B, 128]."""
        return rvq.quantize(embedding, self.codebooks)

    @torch.no_grad()
    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [B, 128] that the first k levels of tokens [B, k] stand for."""
        return rvq.dequantize(tokens, self.codebooks)


def window_starts(count: int) -> list[int]:
    """Return the first frame of each window of a clip of `count` frames: every 5 s, the last aligned to the end."""
    if count <= WINDOW:
        return [0]
    starts = list(range(0, count - WINDOW + 1, WINDOW_HOP))
    return starts if starts[-1] == count - WINDOW else [*starts, count - WINDOW]


def load(name_or_path: str | Path = "mulan") -> MuLan:
    """Return the model that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing or corrupt.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("MuLan", name_or_path):
        keys = ("width", "depth", "heads", "text_width", "dim", "levels", "codebook_size")
        model = MuLan(**{key: config[key] for key in keys})
        model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)
