from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from musicrl import finetuning, weights
from musicrl.config import FinetuneConfig
from musicrl.errors import UserError

PROMPTS = ("0", "1", "2")


@pytest.mark.parametrize("name", ["no_such_module:f", ":f", "math:no_such", "math:"])
def test_reward_that_cannot_be_imported(name: str):
    with pytest.raises(UserError, match=f"reward '{name}' cannot be imported"):
        finetuning.load_reward(name, FinetuneConfig())


def test_reward_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_taste.py").write_text("def loud(prompts, audio, rate):\n    return audio.abs().mean(dim=1)\n")
    monkeypatch.chdir(tmp_path)
    # As in a console script, which has its own folder there.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    before = list(sys.path)
    assert finetuning.load_reward("my_taste:loud", FinetuneConfig()).name == "my_taste:loud"
    assert sys.path == before


def test_card_says_what_was_reached_with_what(tmp_path: Path, make_policy: Callable, monkeypatch: pytest.MonkeyPatch):
    class Codes:
        name = "preference"
        needs_audio = False

        def __call__(self, batch: Any) -> torch.Tensor:
            return batch.codes.float().mean(dim=(1, 2))

    policy, cards, threads = make_policy(), [], []
    policy.save = lambda path, card: cards.append(card)
    model = tmp_path / "preference"
    weights.write(model, {"votes": {"person": 0, "simulated": 384}}, {"x": torch.ones(1)}, "card")
    monkeypatch.setattr(finetuning.policies, "load", lambda name, rank: policy)
    monkeypatch.setattr(finetuning.policies, "checkpoint_sha256", lambda name: "f" * 64)
    monkeypatch.setattr(finetuning.prompts, "load", lambda split: [SimpleNamespace(text=text) for text in PROMPTS])
    monkeypatch.setattr(finetuning.preference, "load", lambda path: Codes())
    monkeypatch.setattr(finetuning.devices, "set_threads", lambda: threads.append(1))
    config = FinetuneConfig(
        rewards={"preference": 1.0},
        preference=str(model),
        steps=2,
        prompts_per_step=2,
        group_size=2,
        seconds=0.3,
        codebook_weights=(),
    )
    finetuning.finetune(config, tmp_path / "run", resume=False)
    assert threads == [1]
    (card,) = cards
    assert "Reward models trained: preference on 384 simulated votes" in card
    assert "2 a step, drawn from the 3 packaged training prompts" in card
    for said in ("commit ", "Licence: Apache-2.0", "Command: `musicrl finetune", "steps = 2"):
        assert said in card
    for figure in ("reward", "reward.preference", "kl", "diversity"):
        assert f"| {figure} | " in card


def test_end_is_the_mean_of_the_last_steps_that_count(tmp_path: Path):
    rows = [f'{{"step": {i}, "reward": {i}.0, "reward.x": 1.0, "kl": 2.0, "loss": 3.0}}' for i in range(1, 13)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 13, "skipped": 1}']) + "\n")
    assert finetuning._end(tmp_path) == {"reward": 7.5, "reward.x": 1.0, "kl": 2.0}
