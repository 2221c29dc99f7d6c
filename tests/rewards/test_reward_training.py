from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from musicrl import reward_training, weights
from musicrl.rewards.fitting import Fitted


def test_what_is_returned_and_printed_says_who_rated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def train(config: Any, rows: Any, path: Path, resume: bool) -> Fitted:
        weights.write(path / "model", {"ratings": {"person": 2, "simulated": 30}}, {"x": torch.ones(1)}, "card")
        return Fitted(5, 5, {"mae": 0.5})

    monkeypatch.setattr(reward_training.quality, "train", train)
    file = tmp_path / "ratings.jsonl"
    file.write_text("")
    _, figures = reward_training.train("quality", tmp_path, file, tmp_path / "out", None, (), resume=False)
    assert figures == {"mae": 0.5, "person ratings": 2.0, "simulated ratings": 30.0}
    assert "2 ratings of people and 30 simulated ratings" in capsys.readouterr().out
