"""From a policy's codes to clips that can be scored: decoded once, loudness-matched once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from musicrl.audio import loudness
from musicrl.rewards.protocol import Generations


def needs_audio(reward: object) -> bool:
    """Return whether a reward listens to the clip; one that reads only the codes says so with `needs_audio = False`.

    Where no reward needs audio, decoding (the most expensive phase after sampling) is skipped.
    """
    return bool(getattr(reward, "needs_audio", True))


def from_audio(prompts: Sequence[str], audio: Tensor, sample_rate: int, codes: Tensor | None = None) -> Generations:
    """Return clips matched in loudness, so that no reward can be raised by being louder.

    Args:
        prompts: B texts.
        audio: [B, N] float.
        sample_rate: Hz.
        codes: [B, K, T] codes of the clips, if a policy made them.
    """
    matched, _ = loudness.match(audio, sample_rate)
    return Generations(prompts=prompts, codes=codes, audio=matched, sample_rate=sample_rate)


def from_codes(
    prompts: Sequence[str],
    codes: Tensor,
    *,
    decode: Callable[[Tensor], Tensor] | None,
    sample_rate: int,
    batch_size: int = 16,
) -> Generations:
    """Decode codes and match the clips in loudness.

    Args:
        prompts: B texts.
        codes: [B, K, T].
        decode: maps codes [b, K, T] to audio [b, N] (`Policy.decode`); None leaves the audio empty, [B, 0], for rewards
            that read only codes.
        sample_rate: Hz of the decoded audio.
        batch_size: clips decoded at once.
    """
    if decode is None:
        silent = torch.zeros(codes.shape[0], 0, device=codes.device)
        return Generations(prompts=prompts, codes=codes, audio=silent, sample_rate=sample_rate)
    audio = torch.cat([decode(part) for part in codes.split(batch_size)])
    return from_audio(prompts, audio, sample_rate, codes)
