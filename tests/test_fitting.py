from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musicrl.config import TaggerConfig
from musicrl.fitting import card, fit
from musicrl.runs import open_run

CONFIG = TaggerConfig()


class StoppedError(Exception):
    pass


def train(
    path: Path, *, steps: int = 8, minutes: float = 1e-9, die_at: int | None = None, resume: bool = False, seed: int = 0
) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        if step == die_at:
            raise StoppedError
        x = torch.randn(16, 3, generator=generator)
        return (model(x) - x[:, :2]).square().mean(), {}

    with open_run(path, "tagger", CONFIG, resume=resume) as run:
        # A checkpoint after every step: the run can die anywhere.
        fit(run, model, loss, steps=steps, learning_rate=0.1, seed=seed, checkpoint_minutes=minutes, description="test")
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(tmp_path / "cut", die_at=5)
    resumed = train(tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()
    # The comparison can fail: other randomness after the cut gives other weights.
    with pytest.raises(StoppedError):
        train(tmp_path / "other", die_at=5)
    assert not same(whole, train(tmp_path / "other", resume=True, seed=1))


def test_it_learns(tmp_path: Path) -> None:
    model = train(tmp_path, steps=200, minutes=9)
    x = torch.randn(100, 3)
    assert float((model(x) - x[:, :2]).square().mean().detach()) < 0.01


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        x = torch.randn(4, 2, generator=generator)
        return model(x).square().mean() * (float("nan") if step == 1 else 1.0), {}

    with open_run(tmp_path, "tagger", CONFIG, resume=False) as run:
        counts = fit(run, model, loss, steps=4, learning_rate=0.1, seed=0, checkpoint_minutes=9, description="test")
    assert counts["skipped"] == 1
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_card_names_command_seed_and_figures() -> None:
    text = card("T", "S.", part="tagger", data="3 clips", config=CONFIG, seconds=90, figures={"accuracy": 0.51234})
    for part in ("# T", "`musicrl pretrain tagger`", "3 clips", "1.5 minutes", "seed = 1", "| accuracy | 0.5123 |"):
        assert part in text
