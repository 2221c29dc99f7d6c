"""The feature frames that the semantic encoder, MuLan and the tagger look at, and how they are perturbed in training.

A frame is 40 ms (25 Hz): four log-mel columns of 80 bands at 100 Hz in time order, then 84 log magnitudes of semitones.
Gain, equalisation, low-pass, noise and smearing act on these frames, which is far cheaper than on the waveform and lets
the frames of a corpus be computed once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl.audio.features import FLOOR, LOWEST_SEMITONE, SEMITONES, log_mel, semitones

SAMPLE_RATE = 24_000
HOP = 960
FRAME_RATE = SAMPLE_RATE / HOP
MELS = 80
COLUMNS = 4
WIDTH = COLUMNS * MELS + SEMITONES
_LOWEST = math.log(FLOOR)


def frames(audio: Tensor) -> Tensor:
    """Return the feature frames of audio at 24 kHz.

    Args:
        audio: [B, N] float.

    Returns:
        [B, T, 404] float32 natural logarithms of magnitude, T = N // 960, at least log(1e-5).
    """
    count = audio.shape[-1] // HOP
    audio = audio[..., : count * HOP]
    mel = log_mel(audio, sample_rate=SAMPLE_RATE, n_fft=1024, hop=HOP // COLUMNS, n_mels=MELS)
    columns = mel.transpose(1, 2).reshape(audio.shape[0], count, COLUMNS * MELS)
    # Half a log energy is a log magnitude: both halves of a frame then share floor, scale and the effect of a gain.
    notes = 0.5 * semitones(_halve(audio), SAMPLE_RATE // 2, HOP // 2).transpose(1, 2)
    return torch.cat([columns, notes], dim=-1)


def standardise(x: Tensor) -> Tensor:
    """Return frames with about zero mean and unit variance over music: (x + 7) / 2.5."""
    return (x.float() + 7.0) / 2.5


def gain(x: Tensor, generator: torch.Generator, decibels: float = 6.0) -> Tensor:
    """Return frames [B, T, 404] with a level of uniform ± `decibels` added to each clip."""
    level = (2 * torch.rand(x.shape[0], 1, 1, generator=generator) - 1) * decibels * math.log(10) / 20
    return (x + level).clamp_min(_LOWEST)


def equalise(x: Tensor, generator: torch.Generator, decibels: float = 6.0) -> Tensor:
    """Return frames [B, T, 404] filtered by a random smooth curve for each clip: a tilt and two slow waves.

    Args:
        x: frames.
        generator: source of the curves.
        decibels: standard deviation of each of the three parts at its extreme.
    """
    place = _place()
    shapes = torch.stack([2 * place - 1, torch.cos(math.pi * 2 * place), torch.sin(math.pi * 3 * place)])
    amounts = torch.randn(x.shape[0], 3, generator=generator) * decibels / 2 * math.log(10) / 20
    return (x + (amounts @ shapes)[:, None]).clamp_min(_LOWEST)


def low_pass(x: Tensor, generator: torch.Generator, chance: float) -> Tensor:
    """Return frames [B, T, 404] where a share `chance` of clips loses what lies above a random 2–11 kHz."""
    hertz = 2000 * (5.5 ** torch.rand(x.shape[0], 1, generator=generator))
    hit = torch.rand(x.shape[0], 1, generator=generator) < chance
    octaves = torch.log2(_hertz()[None] / hertz).clamp_min(0.0)
    loss = torch.where(hit, octaves * 6.0, torch.zeros(()))
    return (x - loss[:, None]).clamp_min(_LOWEST)


def noise(x: Tensor, generator: torch.Generator, chance: float) -> Tensor:
    """Return frames [B, T, 404] where a share `chance` of clips gets a noise floor 20–60 dB below its mean level."""
    level = -(20 + 40 * torch.rand(x.shape[0], 1, 1, generator=generator)) * math.log(10) / 20
    hit = torch.rand(x.shape[0], 1, 1, generator=generator) < chance
    wobble = 0.5 * torch.randn(x.shape, generator=generator)
    loudest = x.exp().mean(dim=(1, 2), keepdim=True).log()
    return torch.where(hit, torch.logaddexp(x, loudest + level + wobble), x)


def smear(x: Tensor, generator: torch.Generator, chance: float) -> Tensor:
    """Return frames [B, T, 404] where a share `chance` of clips is blurred over neighbouring frames, as codecs do."""
    amount = 0.25 * torch.rand(x.shape[0], 1, 1, generator=generator)
    amount = torch.where(torch.rand(x.shape[0], 1, 1, generator=generator) < chance, amount, torch.zeros(()))
    before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
    after = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
    return (1 - 2 * amount) * x + amount * (before + after)


def _halve(audio: Tensor) -> Tensor:
    """Return audio [B, N] at half its sample rate, [B, N / 2].

    The highest semitone is 3951 Hz, so only what lies above 8 kHz must not fold back: a short filter will do. Half
    the rate halves the cost of the long windows.
    """
    reach = 8
    t = torch.arange(-reach, reach + 1, device=audio.device)
    taps = torch.sinc(t / 2) * torch.hann_window(2 * reach + 3, periodic=False, device=audio.device)[1:-1]
    return F.conv1d(audio.float()[:, None], (taps / taps.sum())[None, None], stride=2, padding=reach)[:, 0]


def _hertz() -> Tensor:
    """Return the centre frequency of each of the 404 features."""
    mel = torch.arange(1, MELS + 1) * (15.0 + 27.0 * math.log(12.0) / math.log(6.4)) / (MELS + 1)
    bands = torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))
    pitches = torch.arange(LOWEST_SEMITONE, LOWEST_SEMITONE + SEMITONES)
    return torch.cat([bands.repeat(COLUMNS), 440.0 * 2.0 ** ((pitches - 69) / 12)])


def _place() -> Tensor:
    """Return where each feature lies between 30 Hz (0) and 12 kHz (1) on a logarithmic scale."""
    return ((_hertz() / 30.0).log() / math.log(400.0)).clamp(0.0, 1.0)
