"""Time–frequency features of audio: log-mel bands and semitone energies.

Magnitudes are scaled by the window's sum, so a full-scale sine has magnitude 1 whatever the window length.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-5
"""Smallest magnitude before the logarithm: -100 dB of full scale."""

LOWEST_SEMITONE = 24
"""MIDI number of the first row of `semitones` (C1, 32.7 Hz)."""

SEMITONES = 84


def spectrogram(audio: Tensor, *, n_fft: int, hop: int) -> Tensor:
    """Return the complex short-time Fourier transform, Hann window, frames centred on multiples of `hop`.

    Args:
        audio: [B, N] float; the ends are mirrored (and padded with silence if shorter than half a window).
        n_fft: window length in samples.
        hop: samples between frames.

    Returns:
        [B, n_fft // 2 + 1, F] complex64, F = N // hop.
    """
    frames = audio.shape[-1] // hop
    missing = n_fft // 2 + 1 - audio.shape[-1]
    if missing > 0:
        audio = F.pad(audio, (0, missing))
    window = _window(n_fft, audio.device)
    spectrum = torch.stft(
        audio.float(), n_fft, hop, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    if spectrum.shape[-1] < frames:
        spectrum = F.pad(spectrum, (0, frames - spectrum.shape[-1]))
    return spectrum[..., :frames] * (2.0 / n_fft * 2.0)


def magnitude(spectrum: Tensor) -> Tensor:
    """Return |spectrum| with a finite gradient at zero."""
    return (spectrum.real.square() + spectrum.imag.square() + 1e-14).sqrt()


def log_mel(
    audio: Tensor,
    *,
    sample_rate: int = 24_000,
    n_fft: int,
    hop: int,
    n_mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> Tensor:
    """Return log-mel magnitudes (Slaney's mel scale, triangular bands of peak 1, natural logarithm).

    Args:
        audio: [B, N] float.
        sample_rate: Hz.
        n_fft: window length in samples.
        hop: samples between frames.
        n_mels: number of bands.
        fmin: lower edge of the lowest band in Hz.
        fmax: upper edge of the highest band in Hz; half the sample rate if None.

    Returns:
        [B, n_mels, F] float32, F = N // hop, at least log(1e-5).
    """
    bank = mel_bank(sample_rate, n_fft, n_mels, fmin, fmax, audio.device)
    mel = bank @ magnitude(spectrogram(audio, n_fft=n_fft, hop=hop))
    return mel.clamp_min(FLOOR).log()


def semitones(audio: Tensor, sample_rate: int, hop: int) -> Tensor:
    """Return log energies of the 84 semitones from C1 (32.7 Hz) to B7 (3951 Hz).

    Low notes are only 2 Hz apart and high ones short, so the window falls with pitch: about 340 ms for the three
    lowest octaves, 170 ms for two, 85 ms for the two highest (a coarse constant-Q transform, Brown 1991).

    Args:
        audio: [B, N] float.
        sample_rate: Hz, at least 8,000.
        hop: samples between frames.

    Returns:
        [B, 84, F] float32 natural logarithms of energy, F = N // hop, at least log(1e-10).
    """
    longest = 2 ** round(math.log2(0.34 * sample_rate))
    rows: list[Tensor] = []
    for first, last, n_fft in ((0, 36, longest), (36, 60, longest // 2), (60, 84, longest // 4)):
        bank = _semitone_bank(sample_rate, n_fft, first, last, audio.device)
        rows.append(bank @ magnitude(spectrogram(audio, n_fft=n_fft, hop=hop)).square())
    return torch.cat(rows, dim=1).clamp_min(FLOOR * FLOOR).log()


@lru_cache(maxsize=32)
def mel_bank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None, device: torch.device
) -> Tensor:
    """Return the [n_mels, n_fft // 2 + 1] matrix from magnitudes to mel bands.

    A band narrower than the spacing of the transform's bins is widened to it, so none is empty.
    """
    top = sample_rate / 2 if fmax is None else fmax
    low, high = _hz_to_mel(fmin), _hz_to_mel(top)
    edges = [_mel_to_hz(low + (high - low) * i / (n_mels + 1)) for i in range(n_mels + 2)]
    centres = torch.tensor(edges[1:-1], dtype=torch.float64)[:, None]
    spacing = sample_rate / n_fft
    below = (centres - torch.tensor(edges[:-2], dtype=torch.float64)[:, None]).clamp_min(spacing)
    above = (torch.tensor(edges[2:], dtype=torch.float64)[:, None] - centres).clamp_min(spacing)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * spacing
    distance = bins - centres
    weights = 1.0 - torch.where(distance < 0, -distance / below, distance / above)
    return weights.clamp_min(0.0).float().to(device)


@lru_cache(maxsize=32)
def _semitone_bank(sample_rate: int, n_fft: int, first: int, last: int, device: torch.device) -> Tensor:
    pitches = torch.arange(LOWEST_SEMITONE + first, LOWEST_SEMITONE + last, dtype=torch.float64)
    centres = (440.0 * 2.0 ** ((pitches - 69.0) / 12.0))[:, None]
    spacing = sample_rate / n_fft
    width = (centres * (2.0 ** (1 / 12) - 1.0)).clamp_min(spacing)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * spacing
    return (1.0 - (bins - centres).abs() / width).clamp_min(0.0).float().to(device)


@lru_cache(maxsize=32)
def _window(n_fft: int, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, device=device)


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4)


def _mel_to_hz(mel: float) -> float:
    return mel * 200.0 / 3.0 if mel < 15.0 else 1000.0 * 6.4 ** ((mel - 15.0) / 27.0)
