"""Semantic tokens: what is played, at 25 Hz, in two codes a frame."""

from musicrl.semantic.tokenizer import SemanticTokenizer, load

__all__ = ["SemanticTokenizer", "load"]
