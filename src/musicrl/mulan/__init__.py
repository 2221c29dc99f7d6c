"""MuLan: music and text in one embedding space, and its embeddings as tokens."""

from musicrl.mulan.model import MuLan, load

__all__ = ["MuLan", "load"]
