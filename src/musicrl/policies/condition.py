"""Prompts to the MuLan tokens that MusicLM is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from musicrl.mulan import MuLan

_KEPT = 10_000


class TextCondition:
    """The tokens of each prompt are computed once; reinforcement learning asks for the same ones again and again."""

    def __init__(self, mulan: MuLan) -> None:
        """Take the embedding that gives the tokens."""
        self._mulan = mulan
        self._known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return MuLan tokens [B, R] int64 of B prompts."""
        missing = sorted({prompt for prompt in prompts if prompt not in self._known})
        if missing:
            if len(self._known) + len(missing) > _KEPT:
                self._known.clear()
                missing = sorted(set(prompts))
            # One by one: in a batch, rounding would depend on its company, and a resumed run has other company.
            for prompt in missing:
                self._known[prompt] = self._mulan.tokens(self._mulan.embed_text([prompt]))[0]
        return torch.stack([self._known[prompt] for prompt in prompts])
