"""Damage of graded severity, for clips a quality model learns from (musicrl.rewards.quality).

Every damage is a pure function of clip, severity and seed. Severity runs from 0 (the clip as it is) to 1 (gross).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Damage = Callable[[Tensor, int, float, torch.Generator], Tensor]
"""`(audio [N], sample_rate, severity, generator) -> audio [N]`."""

Reduce = Callable[[Tensor, int], Tensor]
"""`(audio [1, N], levels) -> audio [1, M]`: a codec's round trip through its first `levels` codebooks."""


def noise(audio: Tensor, sample_rate: int, severity: float, generator: torch.Generator) -> Tensor:
    """Add white noise at a signal-to-noise ratio from 45 dB down to 5 dB."""
    drawn = torch.randn(audio.shape, generator=generator)
    decibels = 45.0 - 40.0 * severity
    return audio + drawn * audio.square().mean().sqrt() * 10.0 ** (-decibels / 20.0)


def clipping(audio: Tensor, sample_rate: int, severity: float, generator: torch.Generator) -> Tensor:
    """Cut the waveform at a share of its peak, from all of it down to 1/20."""
    ceiling = audio.abs().amax() * 20.0**-severity
    return audio.clamp(-ceiling, ceiling)


def low_pass(audio: Tensor, sample_rate: int, severity: float, generator: torch.Generator) -> Tensor:
    """Remove what lies above a cutoff from half the sample rate down to 1/32 of that, on a slope of 48 dB an octave."""
    spectrum = torch.fft.rfft(audio)
    cutoff = 32.0**-severity
    frequency = torch.linspace(0.0, 1.0, spectrum.shape[0])
    return torch.fft.irfft(spectrum / (1.0 + (frequency / cutoff) ** 16).sqrt(), n=audio.shape[0])


def dropouts(audio: Tensor, sample_rate: int, severity: float, generator: torch.Generator) -> Tensor:
    """Silence gaps of 10 to 80 ms, up to six a second, each faded over 2 ms."""
    gate = torch.ones(audio.shape[0])
    seconds = audio.shape[0] / sample_rate
    # All gaps are drawn and the first ones used, so that a higher severity only adds gaps.
    every = max(1, round(6.0 * seconds))
    starts = torch.rand(every, generator=generator) * audio.shape[0]
    lengths = (0.01 + 0.07 * torch.rand(every, generator=generator)) * sample_rate
    for start, length in zip(starts[: math.ceil(severity * every)], lengths, strict=False):
        gate[int(start) : int(start + length)] = 0.0
    fade = max(1, round(0.002 * sample_rate))
    smooth = torch.nn.functional.avg_pool1d(gate[None, None], 2 * fade + 1, 1, fade, count_include_pad=False)
    return audio * torch.minimum(gate, smooth[0, 0])


def wobble(audio: Tensor, sample_rate: int, severity: float, generator: torch.Generator) -> Tensor:
    """Let the speed sway by up to 4 % between 0.5 and 6 times a second, as a worn tape does."""
    rate = 0.5 + 5.5 * float(torch.rand((), generator=generator))
    phase = 2.0 * math.pi * float(torch.rand((), generator=generator))
    time = torch.arange(audio.shape[0], dtype=torch.float64) / sample_rate
    # Speed 1 + d·cos(2πft + φ) moves the reading position by d·sin(2πft + φ) / 2πf.
    depth = 0.04 * severity / (2.0 * math.pi * rate)
    shift = depth * ((2.0 * math.pi * rate * time + phase).sin() - math.sin(phase))
    return _read_at(audio, (time + shift) * sample_rate)


DAMAGES: Mapping[str, Damage] = {
    "noise": noise,
    "clipping": clipping,
    "low_pass": low_pass,
    "dropouts": dropouts,
    "wobble": wobble,
}
"""Every damage that needs no model, by name."""


def degrade(audio: Tensor, sample_rate: int, kind: str, severity: float, seed: int) -> Tensor:
    """Return a damaged clip; the same arguments give the same clip.

    Args:
        audio: [N] float.
        sample_rate: Hz.
        kind: a name in `DAMAGES`.
        severity: 0 to 1; 0 returns the clip as it is.
        seed: of what is drawn at random.

    Returns:
        [N] float32.

    Raises:
        ValueError: the severity is outside [0, 1].
    """
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity} is outside [0, 1]")
    if severity == 0.0:
        return audio.float()
    return DAMAGES[kind](audio.float().cpu(), sample_rate, severity, torch.Generator().manual_seed(seed))


def codec_levels(audio: Tensor, reduce: Reduce, severity: float, levels: int = 12) -> Tensor:
    """Return the clip after a round trip through a codec with few of its levels: all at severity 0, one at 1.

    Args:
        audio: [N] float at the codec's sample rate.
        reduce: the codec's round trip.
        severity: 0 to 1.
        levels: levels the codec has.

    Returns:
        [N] float32.
    """
    kept = max(1, round(levels * (1.0 - severity)))
    coded = reduce(audio[None].float(), kept)[0]
    return torch.nn.functional.pad(coded, (0, max(0, audio.shape[0] - coded.shape[0])))[: audio.shape[0]]


def _read_at(audio: Tensor, positions: Tensor) -> Tensor:
    """Return the audio at fractional positions, by cubic interpolation (Catmull and Rom 1974)."""
    whole = positions.floor()
    t = (positions - whole).float()
    index = whole.long()
    p0, p1, p2, p3 = (audio[(index + offset).clamp(0, audio.shape[0] - 1)] for offset in (-1, 0, 1, 2))
    slope, end_slope = (p2 - p0) / 2.0, (p3 - p1) / 2.0
    a = 2.0 * (p1 - p2) + slope + end_slope
    b = 3.0 * (p2 - p1) - 2.0 * slope - end_slope
    return ((a * t + b) * t + slope) * t + p1
