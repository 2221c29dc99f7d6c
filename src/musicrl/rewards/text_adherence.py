"""Text adherence: how close the clip is to its prompt in a joint embedding of text and music (MusicRL, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from musicrl.audio import io
from musicrl.rewards.protocol import Generations


class JointEmbedding(Protocol):
    """Text and audio in one space; `musicrl.mulan.MuLan` is one."""

    @property
    def sample_rate(self) -> int:
        """Hz of the audio it reads."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return [B, D] of unit norm, on the device of the model."""
        ...

    def embed_audio(self, audio: Tensor) -> Tensor:
        """Return [B, D] of unit norm for audio [B, N], both on the device of the model.

        Long clips are the mean of their 10 s windows.
        """
        ...


class TextAdherence:
    """Reward: cosine of the prompt's and the clip's MuLan embeddings, from -1 to 1.

    The embedding of a clip is the mean over its 10 s windows, scaled to unit norm. MusicRL takes the mean of the
    windows' cosines instead; up to 10 s the two are the same (docs/decisions.md).

    Args:
        embedding: the joint embedding.
    """

    name = "text_adherence"
    needs_audio = True

    def __init__(self, embedding: JointEmbedding) -> None:
        self._embedding = embedding
        self._texts: dict[str, Tensor] = {}

    def __call__(self, batch: Generations) -> Tensor:
        """Return cosines [B]. Prompts that were seen before are not embedded again."""
        for prompt in dict.fromkeys(batch.prompts):
            # One by one: in a batch, rounding would depend on its company, and a resumed run has other company.
            if prompt not in self._texts:
                self._texts[prompt] = self._embedding.embed_text([prompt])[0]
        audio = batch.audio
        if batch.sample_rate != self._embedding.sample_rate:
            audio = io.resample(audio, batch.sample_rate, self._embedding.sample_rate)
        wanted = torch.stack([self._texts[prompt] for prompt in batch.prompts])
        # The embedding may be on another device than the policy that made the clips.
        with torch.no_grad():
            heard = torch.cat([self._embedding.embed_audio(part) for part in audio.to(wanted.device).split(16)])
        return (heard * wanted).sum(dim=1).to(batch.audio.device)
