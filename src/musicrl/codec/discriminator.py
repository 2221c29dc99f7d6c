"""Discriminators on complex spectrograms, for the last phase of training.

A decoder that only matches magnitudes may put any phase under them, which sounds metallic. Networks that see real and
imaginary parts learn which phases occur in music (multi-resolution STFT discriminator: UnivNet, Jang et al. 2021;
complex input: EnCodec, Défossez et al. 2022).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from musicrl.audio.features import spectrogram

_SIZES = (2048, 1024, 512)


class SpectrumDiscriminator(nn.Module):
    """Two-dimensional convolutions over one complex spectrogram.

    Args:
        n_fft: window in samples; frames are a quarter of it apart.
        channels: of the first layer; deeper ones have two and four times as many.
    """

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = (2, channels, 2 * channels, 4 * channels)
        shapes = (((9, 3), (4, 1)), ((9, 3), (4, 1)), ((5, 3), (2, 1)))
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], kernel, stride, (kernel[0] // 2, kernel[1] // 2)))
            for i, (kernel, stride) in enumerate(shapes)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Return what each layer makes of audio [B, N]; the last entry holds the verdicts."""
        spectrum = spectrogram(audio, n_fft=self.n_fft, hop=self.n_fft // 4)
        # Compressed to the power 0.3, or the loudest partials would be all that is seen.
        power = spectrum.real.square() + spectrum.imag.square() + 1e-10
        x = torch.stack([spectrum.real, spectrum.imag], 1) * power.pow(-0.35)[:, None]
        maps: list[Tensor] = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        return [*maps, self.last(x)]


class Discriminators(nn.Module):
    """One `SpectrumDiscriminator` for each of three resolutions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.members = nn.ModuleList(SpectrumDiscriminator(n_fft, channels) for n_fft in _SIZES)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Return the layers' outputs of each member for audio [B, N]."""
        return [cast("list[Tensor]", member(audio)) for member in self.members]


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Return the hinge loss of the discriminators, averaged over them."""
    terms = [F.relu(1.0 - r[-1]).mean() + F.relu(1.0 + f[-1]).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_losses(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the decoder's adversarial loss and the feature matching loss.

    The latter is the L1 distance of the discriminators' hidden layers over the mean size of those of the real clip,
    averaged over layers; no gradient flows to `real`.
    """
    adversarial = torch.stack([-f[-1].float().mean() for f in fake]).mean()
    matching = torch.stack(
        [
            (a.float() - b.detach().float()).abs().mean() / b.detach().float().abs().mean().clamp_min(1e-4)
            for r, f in zip(real, fake, strict=True)
            for a, b in zip(f[:-1], r[:-1], strict=True)
        ]
    ).mean()
    return adversarial, matching
