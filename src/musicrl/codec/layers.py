"""Blocks of the codec: ConvNeXt over frames, and the head that turns frames into a waveform.

Layout is [B, T, D] throughout, so that every heavy operation is one matrix product over the last axis.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SOFT = 1e-2
"""Added to squared magnitudes before division: near zero a phase, and its gradient, mean nothing."""


class Block(nn.Module):
    """ConvNeXt block in one dimension (Liu et al. 2022): depthwise convolution, then a two-layer perceptron."""

    def __init__(self, width: int, expansion: int = 3, kernel: int = 7) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        mixed = self.mix(x.transpose(1, 2)).transpose(1, 2)
        hidden = F.gelu(self.widen(self.norm(mixed)), approximate="tanh")
        return torch.addcmul(x, self.narrow(hidden).to(x.dtype), self.scale)


class SpectrumHead(nn.Module):
    """Predicts a short-time Fourier transform frame by frame and inverts it.

    The spectrum is a sum of two parts. The first has magnitude and phase from the frame alone, as in Vocos (Siuzdak
    2023): attacks and noise. It cannot hold a tone: a steady note gives the same features in every frame while its
    phase must keep turning, and the codes carry no phase. So in the second part each bin has a phasor that turns by
    a predicted angle per hop, as in a phase vocoder, and is pulled by a predicted gate to the first part's phase
    where something new begins.
    """

    def __init__(self, width: int, n_fft: int, hop: int) -> None:
        super().__init__()
        if n_fft % hop != 0 or (n_fft - hop) % 2 != 0:
            raise ValueError(f"hop {hop} must divide n_fft {n_fft} and leave an even rest")
        self.n_fft, self.hop, self.bins = n_fft, hop, n_fft // 2 + 1
        self.linear = nn.Linear(width, 6 * self.bins)
        with torch.no_grad():
            # The level of music; the second part grows where it pays.
            bias = self.linear.bias.view(6, self.bins)
            bias.zero_()
            bias[0], bias[3] = -7.0, -8.5
        turn = 2.0 * torch.pi * hop / n_fft * torch.arange(self.bins)
        self.register_buffer("turn", turn, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        # Flips every other bin, so that phases are relative to the middle of the frame, not to its first sample.
        self.register_buffer("centre", 1.0 - 2.0 * (torch.arange(self.bins) % 2), persistent=False)
        self.turn: Tensor
        self.window: Tensor
        self.centre: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Turn features [B, F, D] into audio [B, F * hop], float32."""
        level, real, imaginary, tonal_level, drift, gate = self.linear(x).float().chunk(6, dim=-1)
        real, imaginary = normalise(real, imaginary)
        angle = self.turn + drift
        tonal_real, tonal_imaginary = turn_phasors((real, imaginary), (angle.cos(), angle.sin()), gate.sigmoid())
        magnitude = level.clamp(max=3.0).exp() * self.centre
        tonal = tonal_level.clamp(max=3.0).exp() * self.centre
        spectrum = torch.complex(
            torch.addcmul(magnitude * real, tonal, tonal_real),
            torch.addcmul(magnitude * imaginary, tonal, tonal_imaginary),
        )
        return self._overlap_add(torch.fft.irfft(spectrum, self.n_fft) * (self.n_fft / 4))

    def _overlap_add(self, frames: Tensor) -> Tensor:
        overlap = self.n_fft // self.hop
        batch, count = frames.shape[:2]
        pieces = (frames * self.window).view(batch, count, overlap, self.hop)
        audio = torch.stack([F.pad(pieces[:, :, i], (0, 0, i, overlap - 1 - i)) for i in range(overlap)]).sum(0)
        weights = self.window.square().view(overlap, 1, self.hop).expand(overlap, count, self.hop)
        envelope = torch.stack([F.pad(weights[i], (0, 0, i, overlap - 1 - i)) for i in range(overlap)]).sum(0)
        trim = (self.n_fft - self.hop) // 2
        return (audio / envelope.clamp_min(1e-3)).flatten(1)[:, trim : trim + count * self.hop]


def normalise(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Scale complex numbers, given as two tensors, to magnitude one (less where they are close to zero)."""
    scale = (real.square() + imaginary.square() + _SOFT).rsqrt()
    return real * scale, imaginary * scale


def turn_phasors(start: tuple[Tensor, Tensor], rotation: tuple[Tensor, Tensor], gate: Tensor) -> tuple[Tensor, Tensor]:
    """Turn unit phasors frame by frame, pulled towards given ones by a gate; differentiable.

    p[t] = normalise((1 - gate[t]) * p[t - 1] * rotation[t] + gate[t] * start[t]), with p[-1] = 0.

    Args:
        start: real and imaginary parts [B, F, bins] of unit phasors.
        rotation: likewise, the turn from frame t - 1 to t.
        gate: [B, F, bins] within (0, 1).

    Returns:
        Real and imaginary parts [B, F, bins].
    """
    keep = 1.0 - gate
    turned = _Recurrence.apply(keep * rotation[0], keep * rotation[1], gate * start[0], gate * start[1])
    return cast("tuple[Tensor, Tensor]", turned)


class _Recurrence(torch.autograd.Function):
    """z[t] = a[t] p[t - 1] + b[t] and p[t] = z[t] / |z[t]| for complex a, b given as real and imaginary parts.

    Written out because autograd would record some twenty small operations a frame, which costs more than they do.
    """

    @staticmethod
    def forward(ctx: Any, a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor) -> tuple[Tensor, Tensor]:
        # Time first: every frame is then one contiguous piece.
        ar, ai, br, bi = (x.transpose(0, 1).contiguous() for x in (a_re, a_im, b_re, b_im))
        re, im, scale = torch.empty_like(ar), torch.empty_like(ar), torch.empty_like(ar)
        x = y = torch.zeros_like(ar[0])
        for t in range(len(ar)):
            real = torch.addcmul(br[t], ar[t], x).addcmul_(ai[t], y, value=-1.0)
            imaginary = torch.addcmul(bi[t], ai[t], x).addcmul_(ar[t], y)
            torch.addcmul(real.square().add_(_SOFT), imaginary, imaginary, out=scale[t]).rsqrt_()
            x, y = torch.mul(real, scale[t], out=re[t]), torch.mul(imaginary, scale[t], out=im[t])
        ctx.save_for_backward(ar, ai, re, im, scale)
        return re.transpose(0, 1), im.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ar, ai, re, im, scale = ctx.saved_tensors
        grad_re, grad_im = (g.transpose(0, 1).contiguous() for g in gradients)
        dx, dy = torch.empty_like(re), torch.empty_like(im)
        x, y = grad_re[-1], grad_im[-1]
        for t in range(len(ar) - 1, -1, -1):
            # d z = (d p - p <p, d p>) / |z|: only what is across the phasor passes the normalisation.
            along = torch.mul(re[t], x).addcmul_(im[t], y)
            zx = torch.addcmul(x, re[t], along, value=-1.0, out=dx[t]).mul_(scale[t])
            zy = torch.addcmul(y, im[t], along, value=-1.0, out=dy[t]).mul_(scale[t])
            if t > 0:
                x = torch.addcmul(grad_re[t - 1], ar[t], zx).addcmul_(ai[t], zy)
                y = torch.addcmul(grad_im[t - 1], ar[t], zy).addcmul_(ai[t], zx, value=-1.0)
        before_re = F.pad(re[:-1], (0, 0, 0, 0, 1, 0))
        before_im = F.pad(im[:-1], (0, 0, 0, 0, 1, 0))
        da_re = torch.mul(dx, before_re).addcmul_(dy, before_im)
        da_im = torch.mul(dy, before_re).addcmul_(dx, before_im, value=-1.0)
        return tuple(g.transpose(0, 1) for g in (da_re, da_im, dx, dy))  # pyright: ignore[reportReturnType]
