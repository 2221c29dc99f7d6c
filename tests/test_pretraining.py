"""A base model in the making uses its own parts, then the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musicrl import pretraining, weights
from musicrl.errors import UserError


def test_own_parts_take_the_place_of_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = weights.embedded("codec")
    monkeypatch.setenv(weights.OWN, str(tmp_path))
    assert weights.embedded("codec") == shipped
    weights.write(tmp_path / "codec/model", {"made": "here"}, {"w": torch.ones(2)}, "card")
    assert weights.read("codec")[0]["made"] == "here"
    assert weights.embedded("mulan") == shipped.with_name("mulan")


def test_parts_are_trained_in_order_and_see_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.OWN, raising=False)
    seen: list[tuple[str, list[str]]] = []

    class Room:
        def __init__(self, name: str) -> None:
            self.name = name

        def train(self, settings: object, corpus: Path, run: Path, resume: bool) -> None:
            seen.append(
                (self.name, [part for part in pretraining.PARTS if weights.embedded(part).is_relative_to(tmp_path)])
            )
            weights.write(run / "model", {}, {"w": torch.ones(1)}, "card")

    rooms = {module: Room(part) for part, module in pretraining.PARTS.items()}
    monkeypatch.setattr(pretraining.importlib, "import_module", rooms.__getitem__)
    folders = pretraining.pretrain("all", tmp_path / "corpus", tmp_path, None, (), resume=False)
    order = list(pretraining.PARTS)
    assert folders == [tmp_path / part for part in order]
    assert seen == [(part, order[:index]) for index, part in enumerate(order)]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no part 'flute'"):
        pretraining.pretrain("flute", tmp_path, tmp_path, None, (), resume=False)
    with pytest.raises(UserError, match="settings belong to one part"):
        pretraining.pretrain("all", tmp_path, tmp_path, None, ["steps=1"], resume=False)
