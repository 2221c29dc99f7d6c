"""The codec: log-mel in, residual codes in the middle, waveform out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl.audio.features import log_mel
from musicrl.codec.layers import Block, SpectrumHead
from musicrl.codec.quantizer import ResidualQuantizer


class Codec(nn.Module):
    """Neural audio codec with the rates of SoundStream: 24 kHz mono, 50 frames a second, 12 codebooks of 1,024.

    The encoder sees log-mel magnitudes only. Phase would be noise to every model of the codes; the decoder makes up a
    phase that fits.

    Args:
        width: D of encoder and decoder.
        encoder_blocks: ConvNeXt blocks at 50 Hz before the quantizer.
        decoder_blocks: ConvNeXt blocks at 50 Hz after it.
        output_blocks: ConvNeXt blocks at 100 Hz before the spectrum head.
        latent_dim: dimension that is quantized.
        num_codebooks: levels of the residual quantizer.
        codebook_size: entries of each.
        sample_rate: Hz.
        hop: samples between mel frames; a code frame is two of them.
        n_fft: window of the encoder's mel frames, samples.
        n_mels: mel bands.
        head_n_fft: window of the inverse transform, samples.
    """

    def __init__(
        self,
        *,
        width: int = 320,
        encoder_blocks: int = 3,
        decoder_blocks: int = 4,
        output_blocks: int = 4,
        latent_dim: int = 64,
        num_codebooks: int = 12,
        codebook_size: int = 1024,
        sample_rate: int = 24_000,
        hop: int = 240,
        n_fft: int = 1024,
        n_mels: int = 100,
        head_n_fft: int = 960,
    ) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.n_fft, self.n_mels = sample_rate, hop, n_fft, n_mels
        self.frame_rate = sample_rate / (2 * hop)
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.embed = nn.Linear(2 * n_mels, width)
        self.encoder = nn.Sequential(*(Block(width) for _ in range(encoder_blocks)), nn.LayerNorm(width))
        # The last norm has no scale: it keeps latents on one sphere, so commitment cannot shrink them.
        self.to_latent = nn.Sequential(nn.Linear(width, latent_dim), nn.LayerNorm(latent_dim, elementwise_affine=False))
        self.quantizer = ResidualQuantizer(num_codebooks, codebook_size, latent_dim)
        self.from_latent = nn.Linear(latent_dim, width)
        self.decoder = nn.Sequential(*(Block(width) for _ in range(decoder_blocks)))
        self.upsample = nn.Linear(width, 2 * width)
        self.output = nn.Sequential(*(Block(width) for _ in range(output_blocks)), nn.LayerNorm(width))
        self.head = SpectrumHead(width, head_n_fft, hop)

    def latents(self, audio: Tensor) -> Tensor:
        """Return the encoder's output [B, T, latent_dim] for audio [B, N], T = ceil(N / 480); differentiable."""
        frame = 2 * self.hop
        audio = F.pad(audio.float(), (0, -audio.shape[-1] % frame))
        mel = log_mel(audio, sample_rate=self.sample_rate, n_fft=self.n_fft, hop=self.hop, n_mels=self.n_mels)
        # Music at -18 LUFS has log-mel values around -5.5 with a spread of 1.6.
        pairs = ((mel.transpose(1, 2) + 5.5) / 1.6).reshape(len(mel), -1, 2 * self.n_mels)
        return self.to_latent(self.encoder(self.embed(pairs).float())).float()

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return audio [B, T * 480] for latents [B, T, latent_dim]; differentiable."""
        x = self.decoder(self.from_latent(latents).float())
        x = self.upsample(x).float().view(len(x), -1, x.shape[-1])
        return self.head(self.output(x))

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio [B, N] at 24 kHz into codes [B, 12, T] int64, T = ceil(N / 480).

        Raises:
            ValueError: the audio is empty or not two-dimensional.
        """
        if audio.dim() != 2 or audio.shape[-1] == 0:
            raise ValueError(f"audio must be [B, N] with N > 0, got {list(audio.shape)}")
        return self.quantizer.encode(self.latents(audio))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, k, T], the first k <= 12 levels, into audio [B, T * 480] float32; deterministic.

        Raises:
            ValueError: more levels than the codec has, none, or a code out of range.
        """
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.num_codebooks:
            raise ValueError(f"codes must be [B, 1..{self.num_codebooks}, T], got {list(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(f"codes must lie within 0..{self.codebook_size - 1}")
        return self.synthesize(self.quantizer.decode(codes))
