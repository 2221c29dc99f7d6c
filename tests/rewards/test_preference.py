from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musicrl import runs
from musicrl.config import PreferenceConfig
from musicrl.errors import UserError
from musicrl.rewards import preference
from musicrl.rewards.preference import Head, Preference, bradley_terry, figures, pooled, train
from musicrl.rewards.protocol import Generations, Reward

CODEBOOKS, FRAMES, SIZE, WIDTH = 2, 8, 6, 16


class TinyBackbone:
    """Random code embeddings, passed through a causal mean; trainable or frozen."""

    width = WIDTH
    device = torch.device("cpu")
    base_sha256 = "0" * 64

    def __init__(self, trainable: bool = False, max_frames: int = 100) -> None:
        generator = torch.Generator().manual_seed(5)
        self.max_frames = max_frames
        self.table = nn.Parameter(torch.randn(CODEBOOKS, SIZE, WIDTH, generator=generator))
        self.trainable = trainable
        self.calls = 0
        self.press_at = -1

    def hidden(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.press_at:
            os.kill(os.getpid(), signal.SIGINT)
        states = sum(self.table[k][codes[:, k]] for k in range(CODEBOOKS))
        assert isinstance(states, Tensor)
        steps = torch.arange(1, codes.shape[2] + 1)[:, None]
        prompt = torch.tensor([float(len(p)) for p in prompts])[:, None, None]
        return torch.tanh(states + 0.1 * states.cumsum(dim=1) / steps) + 0.01 * prompt

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [self.table] if self.trainable else []

    def trainable_state(self) -> dict[str, Tensor]:
        return {"table": self.table.detach().clone()} if self.trainable else {}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            if self.trainable:
                self.table.copy_(state["table"])


def utility(codes: Tensor) -> Tensor:
    """Planted taste: likes code 3 of codebook 0, dislikes code 1 of codebook 1."""
    return 6.0 * ((codes[..., 0, :] == 3).float() - (codes[..., 1, :] == 1).float()).mean(dim=-1)


def votes(count: int, seed: int = 0, flip: float = 0.1, ties: float = 0.1) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    records: list[dict[str, Any]] = []
    for i in range(count):
        codes = torch.randint(SIZE, (2, CODEBOOKS, FRAMES), generator=generator)
        flipped, tied = torch.rand(2, generator=generator) < torch.tensor([flip, ties])
        better = bool(utility(codes)[0] > utility(codes)[1]) != bool(flipped)
        label = 0.5 if tied else float(better)
        records.append(
            {"prompt": f"{i // 2}", "codes_a": codes[0].numpy(), "codes_b": codes[1].numpy(), "label": label}
        )
    return records


def settings(**changes: Any) -> PreferenceConfig:
    defaults: dict[str, Any] = {"steps": 12, "batch_size": 16, "eval_every": 4, "learning_rate": 0.01}
    return PreferenceConfig(**(defaults | {"head_learning_rate": 0.05} | changes))


def test_bradley_terry_by_hand():
    losses = bradley_terry(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]))
    lead, trail = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert losses.tolist() == pytest.approx([lead, trail, math.log(2)])


def test_tie_is_best_met_by_equal_scores():
    scores = torch.tensor([1.5], requires_grad=True)
    bradley_terry(scores, torch.tensor([0.0]), torch.tensor([0.5])).sum().backward()
    assert scores.grad is not None and scores.grad.item() > 0.3
    equal = torch.tensor([0.7], requires_grad=True)
    bradley_terry(equal, torch.tensor([0.7]), torch.tensor([0.5])).sum().backward()
    assert equal.grad is not None and equal.grad.item() == 0.0


def test_figures_leave_ties_out_of_the_accuracy():
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5])
    found = figures(scores, labels, list("abcde"))
    # Two right, one wrong, one coin toss.
    assert found["votes"] == 4 and found["accuracy"] == 0.625
    # Residuals 3/8, 3/8, -5/8, -1/8: 1.96 · √(11/16 · 4/3) / 4 = 0.4691.
    assert found["accuracy_low"] == pytest.approx(0.1559, abs=1e-3)
    assert found["accuracy_high"] == 1.0
    # The right ones stand together, so there are but two independent answers.
    assert figures(scores, labels, list("aabbc"))["accuracy_low"] == 0.0
    assert "accuracy_low" not in figures(scores, labels, list("aaaaa"))


def test_shorter_clips_in_a_batch_are_pooled_as_if_alone():
    backbone = TinyBackbone()
    codes = torch.randint(SIZE, (2, CODEBOOKS, FRAMES), generator=torch.Generator().manual_seed(0))
    short = codes[1, :, :5]
    together = pooled(backbone, ("a", "b"), [codes[0], short])
    torch.testing.assert_close(together[0], backbone.hidden(("a",), codes[:1])[0].mean(dim=0))
    torch.testing.assert_close(together[1], backbone.hidden(("b",), short[None])[0].mean(dim=0))


def test_longer_clips_are_read_in_a_first_and_a_last_window():
    backbone = TinyBackbone(max_frames=5)
    codes = torch.randint(SIZE, (CODEBOOKS, FRAMES), generator=torch.Generator().manual_seed(0))
    first = backbone.hidden(("a",), codes[None, :, :5])[0].mean(dim=0)
    last = backbone.hidden(("a",), codes[None, :, -5:])[0].mean(dim=0)
    found = pooled(backbone, ("a", "a"), [codes, codes[:, :5]])
    torch.testing.assert_close(found, torch.stack([(first + last) / 2, first]))


@pytest.mark.parametrize("trainable", [False, True])
def test_planted_utility_is_recovered(tmp_path: Path, trainable: bool):
    config = settings(steps=150, eval_every=10, patience=5, tune="lora" if trainable else "head")
    fitted = train(config, votes(800), tmp_path / "run", False, backbone=TinyBackbone(trainable))
    assert fitted.held_out["accuracy"] > 0.75
    assert fitted.held_out["accuracy_low"] < fitted.held_out["accuracy"] < fitted.held_out["accuracy_high"]
    reward = preference.load(tmp_path / "run" / "model", backbone=TinyBackbone(trainable))
    assert isinstance(reward, Reward)
    clips = torch.randint(SIZE, (300, CODEBOOKS, FRAMES), generator=torch.Generator().manual_seed(9))
    scores = reward(Generations(("new",) * 300, clips, torch.zeros(300, 0), 1))
    correlation = torch.corrcoef(torch.stack([scores, utility(clips)]))[0, 1]
    assert correlation > 0.85


def test_random_labels_teach_nothing(tmp_path: Path):
    """Negative control of the test above: early stopping keeps a model that is no better than chance near it."""
    fitted = train(settings(steps=60), votes(400, flip=0.5), tmp_path / "run", False, backbone=TinyBackbone())
    assert fitted.held_out["loss"] > 0.6
    assert fitted.held_out["accuracy_low"] < 0.5


def test_labels_without_a_taste_still_give_scores_that_finetuning_can_standardise(tmp_path: Path):
    # Each held-out loss is above log 2: that of the untrained model, which scores every clip the same, is the lowest.
    config = settings(steps=200, eval_every=4, patience=2, head_learning_rate=0.5)
    fitted = train(config, votes(80, flip=0.5), tmp_path / "run", False, backbone=TinyBackbone())
    losses = [row["held_out.loss"] for row in rows(tmp_path / "run") if "held_out.loss" in row]
    assert losses[0] < min(losses[1:])
    assert fitted.best_step > 0 and fitted.held_out["loss"] == pytest.approx(min(losses[1:]), abs=5e-3)
    reward = preference.load(tmp_path / "run" / "model", backbone=TinyBackbone())
    clips = torch.randint(SIZE, (8, CODEBOOKS, FRAMES), generator=torch.Generator().manual_seed(9))
    assert reward(Generations(("new",) * 8, clips, torch.zeros(8, 0), 1)).std() > 0.0


def test_model_says_who_voted_and_loads_only_on_its_own_base(tmp_path: Path):
    kinds = ["person"] * 20 + ["simulated"] * 40
    given = [vote | {"rater_kind": kind} for vote, kind in zip(votes(60), kinds, strict=True)]
    train(settings(), given, tmp_path / "run", False, backbone=TinyBackbone())
    model = tmp_path / "run" / "model"
    assert json.loads((model / "config.json").read_text())["votes"] == {"person": 20, "simulated": 40}
    assert "20 votes of people and 40 simulated votes" in (model / "README.md").read_text()
    other = TinyBackbone()
    other.base_sha256 = "1" * 64
    with pytest.raises(UserError, match="another base \\(000000000000, there is 111111111111\\)"):
        preference.load(model, backbone=other)


def test_a_training_is_not_resumed_on_another_base(tmp_path: Path):
    config = settings()
    train(config, votes(60), tmp_path, False, backbone=TinyBackbone())
    other = TinyBackbone()
    other.base_sha256 = "1" * 64
    with pytest.raises(UserError, match="another base"):
        train(config, votes(60), tmp_path, True, backbone=other)


def test_ceiling_is_reported_where_clips_were_compared_twice(tmp_path: Path):
    once = votes(60)
    assert "ceiling" not in train(settings(), once, tmp_path / "once", False, backbone=TinyBackbone()).held_out
    twice = once + [{**record, "label": 1.0 - record["label"]} for record in once[:10]] + once[10:]
    found = train(settings(), twice, tmp_path / "twice", False, backbone=TinyBackbone()).held_out["ceiling"]
    assert 0.5 < found < 1.0


def test_frozen_backbone_is_run_once(tmp_path: Path):
    backbone = TinyBackbone()
    train(settings(batch_size=4, device_batch_size=8), votes(40), tmp_path / "run", False, backbone=backbone)
    assert backbone.calls <= 40 / 8 + 2


def test_batch_size_on_the_device_changes_nothing(tmp_path: Path):
    tables: list[Tensor] = []
    for size in (3, 16):
        backbone = TinyBackbone(trainable=True)
        train(settings(device_batch_size=size), votes(60), tmp_path / str(size), False, backbone=backbone)
        tables.append(backbone.table.detach())
    torch.testing.assert_close(tables[0], tables[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(tables[0], TinyBackbone().table, atol=1e-3)


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def run_in_two_parts(path: Path, config: PreferenceConfig) -> TinyBackbone:
    interrupted = TinyBackbone(trainable=True)
    # Calls: the scale of the head, the evaluation before the first step, then one a step.
    interrupted.press_at = 9
    with pytest.raises(UserError, match="interrupted at step"):
        train(config, votes(60), path, False, backbone=interrupted)
    resumed = TinyBackbone(trainable=True)
    train(config, votes(60), path, True, backbone=resumed)
    return resumed


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path):
    config = settings(device_batch_size=64)
    whole = TinyBackbone(trainable=True)
    train(config, votes(60), tmp_path / "whole", False, backbone=whole)
    resumed = run_in_two_parts(tmp_path / "parts", config)
    assert torch.equal(resumed.table, whole.table)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("forgotten", ["generators", "optimizer"])
def test_resuming_without_all_state_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str):
    """Negative control of the test above."""
    config = settings(device_batch_size=64)
    train(config, votes(60), tmp_path / "whole", False, backbone=TinyBackbone(trainable=True))
    unpack = runs.unpack

    def forgetful(tensors: Any, state: Any, **kept: Any) -> None:
        unpack(tensors, state, **{name: value for name, value in kept.items() if name != forgotten})

    monkeypatch.setattr("musicrl.rewards.fitting.runs.unpack", forgetful)
    run_in_two_parts(tmp_path / "parts", config)
    assert rows(tmp_path / "parts") != rows(tmp_path / "whole")


def test_training_stops_when_the_held_out_loss_no_longer_falls(tmp_path: Path):
    config = settings(steps=2000, eval_every=2, patience=3, head_learning_rate=0.5)
    fitted = train(config, votes(60, flip=0.4), tmp_path / "run", False, backbone=TinyBackbone())
    losses = [row["held_out.loss"] for row in rows(tmp_path / "run") if "held_out.loss" in row]
    assert fitted.steps == fitted.best_step + 2 * 3 < 2000
    # Measured again on the weights as they are stored, in bf16.
    assert fitted.held_out["loss"] == pytest.approx(min(losses[1:]), abs=5e-3)


def test_too_few_votes(tmp_path: Path):
    with pytest.raises(UserError, match="collect more"):
        train(settings(), votes(1), tmp_path / "run", False, backbone=TinyBackbone())
    with pytest.raises(UserError, match="not be a tie"):
        train(settings(), votes(40, ties=1.0), tmp_path / "run", False, backbone=TinyBackbone())


def test_clips_without_codes_are_refused():
    reward = Preference(TinyBackbone(), Head(WIDTH))
    with pytest.raises(UserError, match="codes"):
        reward(Generations(("a",), None, torch.zeros(1, 10), 1))
