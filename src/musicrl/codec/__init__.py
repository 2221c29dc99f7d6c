"""Neural audio codec: waveform to residual codes [B, 12, T] at 50 Hz, and back."""

from __future__ import annotations

from pathlib import Path

from musicrl import weights
from musicrl.codec.model import Codec
from musicrl.codec.training import train

__all__ = ["Codec", "load", "train"]


def load(name_or_path: str | Path = "codec") -> Codec:
    """Return a trained codec in evaluation mode on the CPU.

    Args:
        name_or_path: the part shipped in the package, or a folder that `musicrl pretrain codec` wrote.

    Raises:
        UserError: the weights are missing or corrupt.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("codec", name_or_path):
        codec = Codec(**config["architecture"])
        codec.load_state_dict(tensors)
    return codec.eval()
