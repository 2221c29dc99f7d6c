"""The network behind the semantic tokens: a convolutional encoder at 25 Hz with two narrow outputs.

`tonal` carries pitch, `texture` rhythm, drums, timbre and loudness. Seven blocks see ±0.6 s, so a frame's tokens do not
depend on where a clip was cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl.audio.frames import WIDTH, standardise

PITCHES = 88
"""MIDI pitches 21–108, the keys of a piano."""


class ConvBlock(nn.Module):
    """Residual block: norm, convolution of three taps to twice the width, GELU, and back."""

    def __init__(self, width: int, dilation: int) -> None:
        """Make a block for [B, T, width] whose taps lie `dilation` frames apart."""
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.taps = nn.Linear(3 * width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, width] for [B, T, width]."""
        d, length = self.dilation, x.shape[1]
        padded = F.pad(self.norm(x), (0, 0, d, d))
        # One matrix product over shifted copies: on a CPU with matrix units, whatever is not a product costs the time.
        shifted = torch.cat([padded[:, k * d : k * d + length] for k in range(3)], -1)
        return x + self.down(F.gelu(self.taps(shifted), approximate="tanh"))


class Encoder(nn.Module):
    """Feature frames to two normalised bottlenecks."""

    def __init__(self, width: int, depth: int, bottleneck: int) -> None:
        """Make an encoder of `depth` blocks of `width` channels and two outputs of `bottleneck` channels."""
        super().__init__()
        self.enter = nn.Linear(WIDTH, width)
        self.mask = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList([ConvBlock(width, (1, 2, 4)[i % 3]) for i in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.tonal = nn.Linear(width, bottleneck)
        self.texture = nn.Linear(width, bottleneck)

    def hidden(self, frames: Tensor, masked: Tensor | None = None) -> Tensor:
        """Return hidden states.

        Args:
            frames: [B, T, 404] feature frames.
            masked: [B, T] bool, frames that the encoder must not see.

        Returns:
            [B, T, width].
        """
        x = self.enter(standardise(frames))
        if masked is not None:
            x = torch.where(masked[..., None], self.mask.to(x.dtype), x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def bottlenecks(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return tonal and texture vectors [B, T, bottleneck] of zero mean and unit variance over the channels."""
        size = (self.tonal.out_features,)
        return F.layer_norm(self.tonal(hidden), size), F.layer_norm(self.texture(hidden), size)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return tonal and texture vectors [B, T, bottleneck] of frames [B, T, 404]."""
        return self.bottlenecks(self.hidden(frames))
