"""What a decoded clip is compared by: magnitudes at several resolutions and the turning of phases."""

from __future__ import annotations

import torch
from torch import Tensor

from musicrl.audio.features import magnitude, mel_bank, spectrogram

RESOLUTIONS = ((2048, 128), (1024, 80), (512, 48), (256, 24))
"""(window in samples, mel bands); frames are a quarter of a window apart."""

_FLOOR = 1e-4


def reconstruction(audio: Tensor, target: Tensor, sample_rate: int) -> dict[str, Tensor]:
    """Compare clips by magnitudes at several resolutions and by the turning of phases.

    Args:
        audio: [B, N], differentiable.
        target: [B, N].
        sample_rate: Hz.

    Returns:
        Scalars, each a mean over resolutions: `mel`, the L1 distance of log-mel magnitudes (natural logarithm, floor
        -80 dB); `magnitude`, the L1 distance of magnitudes over the L1 norm of the target's; `turning`, one minus the
        cosine between how far the phases of both turn from frame to frame and from bin to bin, weighted by the
        target's magnitude (the derivatives of phase in APNet, Ai & Ling 2023, without unwrapping).
    """
    mel: list[Tensor] = []
    linear: list[Tensor] = []
    turning: list[Tensor] = []
    for n_fft, n_mels in RESOLUTIONS:
        ours = spectrogram(audio, n_fft=n_fft, hop=n_fft // 4)
        theirs = spectrogram(target, n_fft=n_fft, hop=n_fft // 4)
        a, b = magnitude(ours), magnitude(theirs)
        bank = mel_bank(sample_rate, n_fft, n_mels, 0.0, None, audio.device)
        mel.append(((bank @ a + _FLOOR).log() - (bank @ b + _FLOOR).log()).abs().mean())
        # Bounded below: a silent target must not blow the ratio up.
        scale = b.mean(dim=(1, 2)).clamp_min(1e-5)
        linear.append(((a - b).abs().mean(dim=(1, 2)) / scale).mean())
        if n_fft in (1024, 512):
            turning.append(_turning(ours, theirs, dim=2))
            turning.append(_turning(ours, theirs, dim=1))
    return {
        "mel": torch.stack(mel).mean(),
        "magnitude": torch.stack(linear).mean(),
        "turning": torch.stack(turning).mean(),
    }


def mel_distance(audio: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Return the `mel` part of `reconstruction` per clip [B]; no gradient."""
    with torch.no_grad():
        parts: list[Tensor] = []
        for n_fft, n_mels in RESOLUTIONS:
            bank = mel_bank(sample_rate, n_fft, n_mels, 0.0, None, audio.device)
            a, b = (
                (bank @ magnitude(spectrogram(x, n_fft=n_fft, hop=n_fft // 4)) + _FLOOR).log() for x in (audio, target)
            )
            parts.append((a - b).abs().mean(dim=(1, 2)))
        return torch.stack(parts).mean(0)


def _turning(ours: Tensor, theirs: Tensor, dim: int) -> Tensor:
    count = ours.shape[dim] - 1
    a = ours.narrow(dim, 1, count) * ours.narrow(dim, 0, count).conj()
    b = theirs.narrow(dim, 1, count) * theirs.narrow(dim, 0, count).conj()
    # Half the squared chord of unit vectors is one minus their cosine. `magnitude` is bounded below, so bins under
    # about -70 dB count less; a cosine divided by it would instead be smallest for the loudest clip.
    scale_a, scale_b = magnitude(a), magnitude(b)
    chord = (a.real / scale_a - b.real / scale_b).square() + (a.imag / scale_a - b.imag / scale_b).square()
    weight = scale_b.sqrt().detach()
    return (0.5 * chord * weight).sum() / weight.sum().clamp_min(1e-5)
