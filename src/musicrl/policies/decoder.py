"""From MusicLM's codes to sound: the fine stage, then the codec."""

from __future__ import annotations

import torch
from torch import Tensor

from musicrl import devices
from musicrl.codec import Codec
from musicrl.musiclm import layout
from musicrl.musiclm.fine import FineStage


class Decoder:
    """Fine stage and codec; the same codes give the same audio.

    Attributes:
        sample_rate: Hz.
    """

    def __init__(self, fine: FineStage, codec: Codec) -> None:
        """Take both parts; they stay where they are."""
        self.fine = fine
        self.codec = codec
        self.sample_rate: int = codec.sample_rate

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> Tensor:
        """Return audio [B, N] float32 of codes [B, K, T], N = T · 960 at 24 kHz."""
        semantic, acoustic = layout.split(codes)
        with devices.autocast(codes.device):
            return self.codec.synthesize(self.fine.fill(semantic, acoustic)).float()
