"""Finetune text-to-music models from human feedback: an open counterpart of MusicRL (Cideron et al., ICML 2024)."""

__version__ = "0.1.0"
