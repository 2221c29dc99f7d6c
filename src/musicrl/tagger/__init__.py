"""The tagger: what a clip is, and whether that is what its prompt named."""

from musicrl.tagger.model import Tagger, load

__all__ = ["Tagger", "load"]
