from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from musicrl.policies import condition
from musicrl.policies.condition import TextCondition


class Counting:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        self.asked.append(list(texts))
        return torch.tensor([[float(len(text))] for text in texts])

    def tokens(self, embedding: Tensor) -> Tensor:
        return embedding.long()


def test_each_prompt_is_embedded_once_and_in_its_place() -> None:
    mulan = Counting()
    tokens = TextCondition(cast("Any", mulan))
    assert tokens(["bb", "a", "bb"]).tolist() == [[2], [1], [2]]
    assert tokens(["ccc", "a"]).tolist() == [[3], [1]]
    # Each alone: the rounding of an embedding depends on what else is in its batch.
    assert mulan.asked == [["a"], ["bb"], ["ccc"]]


def test_a_full_store_is_emptied(monkeypatch: Any) -> None:
    monkeypatch.setattr(condition, "_KEPT", 3)
    mulan = Counting()
    tokens = TextCondition(cast("Any", mulan))
    tokens(["a", "bb"])
    assert tokens(["a", "ccc", "dddd"]).tolist() == [[1], [3], [4]]
    assert mulan.asked[-3:] == [["a"], ["ccc"], ["dddd"]]
