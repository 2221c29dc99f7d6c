from __future__ import annotations

from pathlib import Path

import pytest

from musicrl.config import FinetuneConfig, load
from musicrl.rl.losses import codebook_weights

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    ("name", "policy", "rewards"),
    [
        ("r", "base", {"text_adherence", "quality"}),
        ("u", "base", {"preference"}),
        ("ru", "runs/r/policy", {"preference"}),
    ],
)
def test_shipped_recipes(name: str, policy: str, rewards: set[str]):
    config = load(FinetuneConfig, RECIPES / f"{name}.toml")
    assert config.policy == policy and config.rewards.keys() == rewards
    weights = codebook_weights(config.codebook_weights, 4)
    assert weights[:2].sum() > weights[2:].sum()
