"""The border between the page and the models: what a generator makes, and what of it a listener may hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from musicrl.errors import UserError
from musicrl.feedback.records import NewClip

SAMPLE_RATE = 24_000
"""Hz of every clip on the page; one rate for all, for the rate of a file could name its model."""

_TARGET_LUFS = -18.0
_QUIETEST_LUFS = -60.0
_MOST_CLIPPED = 0.02
_SHORTEST_SHARE = 0.9


class UnplayableError(UserError):
    """A generated clip that nobody should be asked to judge."""


@dataclass(frozen=True)
class GeneratedClip:
    """What a model made.

    Attributes:
        audio: [N] float in [-1, 1], mono.
        sample_rate: Hz.
        codes: [K, T] integer tokens of the policy, None for a model without.
        model: name of the model.
        checkpoint_sha256: SHA-256 of its weights, hexadecimal.
        seed: with model, prompt and sampler it makes the clip again.
        sampler: settings of the sampler, as JSON values.
    """

    audio: NDArray[np.floating[Any]]
    sample_rate: int
    codes: NDArray[np.integer[Any]] | None
    model: str
    checkpoint_sha256: str
    seed: int
    sampler: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Generator(Protocol):
    """Makes clips of one prompt; runs in a worker process only."""

    def __call__(self, prompt: str, seconds: float, seeds: Sequence[int]) -> list[GeneratedClip]:
        """Return one clip per seed, all to be compared with each other; the same arguments make the same clips."""
        ...


def prepare(prompt: str, seconds: float, clips: Sequence[GeneratedClip]) -> list[NewClip]:
    """Make clips of one prompt alike in everything but the music: rate, length and loudness (-18 LUFS, peak ≤ -1 dBTP).

    Args:
        prompt: the text they were made from.
        seconds: length asked for.
        clips: what the generator returned.

    Returns:
        The clips as listeners will hear them, all of the same number of samples.

    Raises:
        UnplayableError: a clip is silent, clipped, too short, or holds values that are not finite.
    """
    import torch

    from musicrl.audio.io import resample
    from musicrl.audio.loudness import finite_lufs, lufs, match

    resampled = [resample(torch.from_numpy(_checked(clip)), clip.sample_rate, SAMPLE_RATE) for clip in clips]
    length = min(audio.shape[0] for audio in resampled)
    if length < _SHORTEST_SHARE * seconds * SAMPLE_RATE:
        raise UnplayableError(f"a clip has {length / SAMPLE_RATE:.1f} s instead of {seconds:g} s")
    length = min(length, round(seconds * SAMPLE_RATE))
    stacked = torch.stack([audio[:length] for audio in resampled])
    if any(lufs(audio, SAMPLE_RATE) < _QUIETEST_LUFS for audio in stacked):
        raise UnplayableError("a clip is silent")
    matched, gains = match(stacked, SAMPLE_RATE, target=_TARGET_LUFS)
    prepared: list[NewClip] = []
    for clip, audio, gain in zip(clips, matched, gains, strict=True):
        prepared.append(
            NewClip(
                prompt=prompt,
                model=clip.model,
                checkpoint_sha256=clip.checkpoint_sha256,
                seed=clip.seed,
                audio=audio.numpy(),
                sample_rate=SAMPLE_RATE,
                codes=clip.codes,
                sampler=clip.sampler,
                lufs=finite_lufs(audio, SAMPLE_RATE),
                gain_db=float(gain),
            )
        )
    return prepared


def _checked(clip: GeneratedClip) -> NDArray[np.float32]:
    audio = np.array(clip.audio, dtype=np.float32)
    if audio.ndim != 1 or not np.isfinite(audio).all():
        raise UnplayableError(f"a clip of shape {list(audio.shape)} is not mono or not finite")
    if _clipped_share(audio) > _MOST_CLIPPED:
        raise UnplayableError("a clip is clipped")
    return audio


def _clipped_share(audio: NDArray[np.float32]) -> float:
    """Return the share of samples on a flat top. Floats beyond 1 are not clipped: the clip is turned down anyway."""
    peak = float(np.abs(audio).max(initial=0.0))
    if peak == 0.0:
        return 0.0
    flat = (np.abs(audio[1:]) >= 0.99 * peak) & (np.abs(np.diff(audio)) < 1e-6 * peak)
    return float(flat.sum()) / audio.size
