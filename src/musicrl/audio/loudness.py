"""Loudness after ITU-R BS.1770: measure it, and bring clips to the same one.

Listeners (and reward models) prefer the louder of two clips, so clips are matched before anyone compares them.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyloudnorm
import torch
from scipy.signal import resample_poly
from torch import Tensor

_BLOCK_SECONDS = 0.4
_OVERSAMPLING = 4


def lufs(audio: Tensor, sample_rate: int) -> float:
    """Return the integrated loudness (ITU-R BS.1770-4: K-weighted, gated, blocks of 400 ms).

    Args:
        audio: [N] float, mono.
        sample_rate: Hz.

    Returns:
        LUFS; -inf for silence, for clips shorter than one block, and for clips with values that are not finite.
    """
    samples = audio.detach().to("cpu", torch.float64).numpy()
    if samples.shape[0] < math.ceil(_BLOCK_SECONDS * sample_rate) or not np.isfinite(samples).all():
        return -math.inf
    meter = pyloudnorm.Meter(sample_rate, block_size=_BLOCK_SECONDS)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")
        loudness = float(meter.integrated_loudness(samples))
    return loudness if math.isfinite(loudness) else -math.inf


def finite_lufs(audio: Tensor, sample_rate: int) -> float | None:
    """Return `lufs`, or None for a clip without a loudness, as the preference store keeps it."""
    loudness = lufs(audio, sample_rate)
    return loudness if math.isfinite(loudness) else None


def true_peak(audio: Tensor) -> float:
    """Return the peak between samples in dB of full scale (BS.1770-4 annex 2: four-fold oversampling).

    Args:
        audio: [N] float.

    Returns:
        dBTP; -inf for silence.
    """
    samples = audio.detach().to("cpu", torch.float32).numpy()
    oversampled = resample_poly(samples, _OVERSAMPLING, 1)
    peak = max(float(np.abs(oversampled).max(initial=0.0)), float(np.abs(samples).max(initial=0.0)))
    return 20.0 * math.log10(peak) if peak > 0.0 else -math.inf


def match(audio: Tensor, sample_rate: int, target: float = -18.0, peak_dbtp: float = -1.0) -> tuple[Tensor, Tensor]:
    """Scale each clip to the target loudness, or less where its true peak would pass the ceiling.

    A clip without a loudness (silent, shorter than 400 ms, not finite) is returned as it is with gain 0.

    Args:
        audio: [B, N] float.
        sample_rate: Hz.
        target: LUFS.
        peak_dbtp: highest true peak allowed, dBTP.

    Returns:
        The scaled clips [B, N] float32 and the gains applied [B] in dB.
    """
    gains = torch.zeros(audio.shape[0], dtype=torch.float32)
    for i, clip in enumerate(audio):
        loudness = lufs(clip, sample_rate)
        if math.isfinite(loudness):
            gains[i] = min(target - loudness, peak_dbtp - true_peak(clip))
    gains = gains.to(audio.device)
    return audio.float() * 10.0 ** (gains[:, None] / 20.0), gains
