from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musicrl import runs
from musicrl.config import FinetuneConfig
from musicrl.errors import UserError
from musicrl.policies.protocol import TokenScores
from musicrl.rewards.callable import from_callable
from musicrl.rewards.combine import WeightedSum
from musicrl.rewards.protocol import Generations
from musicrl.rl import Outcome, finetune

PROMPTS = ("0", "1", "2")


class Target:
    """Share of codes that equal the number the prompt is."""

    name = "target"
    needs_audio = False

    def __init__(self) -> None:
        self.calls = 0

    def before(self) -> None:
        """Overridden where a test wants something to happen during a step."""

    def __call__(self, batch: Generations) -> Tensor:
        self.calls += 1
        self.before()
        assert batch.codes is not None
        wanted = torch.tensor([int(prompt) for prompt in batch.prompts])[:, None, None]
        return (batch.codes == wanted).float().mean(dim=(1, 2))


def settings(**changes: Any) -> FinetuneConfig:
    defaults: dict[str, Any] = {
        "alpha": 0.05,
        "codebook_weights": (),
        "steps": 6,
        "prompts_per_step": 2,
        "group_size": 4,
        "seconds": 0.3,
        "learning_rate": 0.05,
        "value_learning_rate": 0.05,
        "warmup_steps": 0,
        "kl_limit": 1e6,
    }
    return FinetuneConfig(**(defaults | changes))


def train(path: Path, policy: Any, config: FinetuneConfig, reward: Any = None, resume: bool = False) -> Outcome:
    with runs.open_run(path, "finetune", config, resume=resume) as run:
        return finetune(policy, reward or Target(), PROMPTS, config, run)


def metrics(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce"])
def test_toy_task_with_known_optimum_is_solved(tmp_path: Path, make_policy: Callable, algorithm: str):
    policy = make_policy()
    config = settings(algorithm=algorithm, steps=150, prompts_per_step=3, group_size=8, alpha=0.01, learning_rate=0.1)
    outcome = train(tmp_path / "run", policy, config)
    rows = metrics(tmp_path / "run")
    assert outcome == Outcome(steps=150, skipped=0, stopped="steps")
    assert rows[0]["reward"] < 0.5
    assert sum(row["reward"] for row in rows[-10:]) / 10 > 0.97
    assert rows[0]["kl"] == 0.0 and rows[-1]["kl"] > 1.0
    assert rows[-1]["diversity"] < rows[0]["diversity"]
    assert rows[-1]["entropy"] < rows[0]["entropy"]
    if algorithm == "reinforce":
        assert rows[-1]["value_loss"] < rows[0]["value_loss"]


def test_optimum_is_the_reference_tilted_by_the_reward(tmp_path: Path, make_policy: Callable):
    """With one code a clip the optimum of (1 − α) E[r] − α KL is π_ref · exp(r (1 − α) / α), normalised."""
    policy = make_policy(prompts=("a",), codebooks=1, frames=1, size=3)
    rewards = torch.tensor([0.0, 1.0, -0.5])

    class Lookup(Target):
        def __call__(self, batch: Generations) -> Tensor:
            assert batch.codes is not None
            return rewards[batch.codes[:, 0, 0]]

    config = settings(
        steps=150, prompts_per_step=1, group_size=256, seconds=0.1, alpha=0.4, learning_rate=0.03, device_batch_size=256
    )
    with runs.open_run(tmp_path / "run", "finetune", config, resume=False) as run:
        finetune(policy, Lookup(), ("a",), config, run)
    wanted = (policy.base[0, 0, 3] / config.temperature + rewards * 0.6 / 0.4).softmax(dim=-1)
    found = ((policy.base + policy.adapter)[0, 0, 3] / config.temperature).softmax(dim=-1)
    torch.testing.assert_close(found.detach(), wanted, atol=0.03, rtol=0)
    assert (wanted - policy.base[0, 0, 3].softmax(-1)).abs().max() > 0.2


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce"])
def test_batch_size_on_the_device_changes_nothing(tmp_path: Path, make_policy: Callable, algorithm: str):
    adapters: list[Tensor] = []
    for size in (1, 3, 64):
        policy = make_policy()
        train(tmp_path / str(size), policy, settings(algorithm=algorithm, device_batch_size=size))
        adapters.append(policy.adapter.detach())
    torch.testing.assert_close(adapters[0], adapters[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(adapters[1], adapters[2], atol=1e-5, rtol=1e-4)
    assert adapters[0].abs().max() > 0.01


class Interrupting(Target):
    """Presses Ctrl-C during the third step."""

    def before(self) -> None:
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, make_policy: Callable, algorithm: str):
    config = settings(algorithm=algorithm)
    whole = make_policy()
    train(tmp_path / "whole", whole, config)
    with pytest.raises(UserError, match="interrupted at step 3"):
        train(tmp_path / "parts", make_policy(), config, Interrupting())
    resumed = make_policy()
    train(tmp_path / "parts", resumed, config, resume=True)
    assert torch.equal(resumed.adapter, whole.adapter)
    assert timeless(metrics(tmp_path / "parts")) == timeless(metrics(tmp_path / "whole"))
    final = [runs.open_run(tmp_path / name, "finetune", config, resume=True).latest() for name in ("whole", "parts")]
    assert final[0] is not None and final[1] is not None
    assert final[0].tensors.keys() == final[1].tensors.keys()
    assert all(torch.equal(tensor, final[1].tensors[name]) for name, tensor in final[0].tensors.items())


@pytest.mark.parametrize("forgotten", ["generators", "optimizer"])
def test_resuming_without_all_state_would_differ(
    tmp_path: Path, make_policy: Callable, monkeypatch: pytest.MonkeyPatch, forgotten: str
):
    """Negative control of the test above."""
    config = settings()
    whole = make_policy()
    train(tmp_path / "whole", whole, config)
    with pytest.raises(UserError, match="interrupted"):
        train(tmp_path / "parts", make_policy(), config, Interrupting())
    unpack = runs.unpack

    def forgetful(tensors: Any, state: Any, **kept: Any) -> None:
        unpack(tensors, state, **{name: value for name, value in kept.items() if name != forgotten})

    monkeypatch.setattr("musicrl.rl.loop.runs.unpack", forgetful)
    resumed = make_policy()
    train(tmp_path / "parts", resumed, config, resume=True)
    assert not torch.equal(resumed.adapter, whole.adapter)


def test_seed_decides_the_run(tmp_path: Path, make_policy: Callable):
    adapters: list[Tensor] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        policy = make_policy()
        train(tmp_path / name, policy, settings(seed=seed))
        adapters.append(policy.adapter.detach())
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2])


def broken(kind: str) -> Callable[[Any, Tensor, int], list[float]]:
    def scores(prompts: Any, audio: Tensor, sample_rate: int) -> list[float]:
        if kind == "raises":
            raise RuntimeError("no such file")
        return [float("nan")] * len(prompts) if kind == "nan" else [1.0] * (len(prompts) - 1)

    return scores


@pytest.mark.parametrize(
    ("kind", "message"),
    [("raises", "RuntimeError: no such file"), ("nan", "NaN or infinite for 8 of 8"), ("short", r"\[7\] for 8 clips")],
)
def test_reward_that_keeps_failing_ends_the_run_with_its_state_saved(
    tmp_path: Path, make_policy: Callable, kind: str, message: str
):
    policy = make_policy()
    config = settings(steps=20)
    with pytest.raises(UserError, match=f"5 steps failed in a row.*{message}.*--resume"):
        train(tmp_path / "run", policy, config, from_callable(broken(kind), "mine"))
    assert policy.adapter.abs().max() == 0.0
    assert [row["skipped"] for row in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    outcome = train(tmp_path / "run", policy, config, resume=True)
    assert outcome == Outcome(steps=20, skipped=5, stopped="steps")


def test_single_failures_cost_one_step_each(tmp_path: Path, make_policy: Callable):
    class Flaky(Target):
        def before(self) -> None:
            if self.calls % 2:
                raise RuntimeError("now and then")

    policy = make_policy()
    outcome = train(tmp_path / "run", policy, settings(steps=12), Flaky())
    assert outcome == Outcome(steps=12, skipped=6, stopped="steps")
    rows = metrics(tmp_path / "run")
    assert [row["skipped"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert ["reward" in row for row in rows] == [False, True] * 6
    assert policy.adapter.abs().max() > 0


def test_error_of_the_user_in_a_reward_ends_the_run_at_once(tmp_path: Path, make_policy: Callable):
    class Missing(Target):
        def before(self) -> None:
            raise UserError("weights are missing")

    with pytest.raises(UserError, match="weights are missing"):
        train(tmp_path / "run", make_policy(), settings(), Missing())


def test_gradient_that_is_not_finite_changes_nothing(tmp_path: Path, make_policy: Callable):
    policy = make_policy()
    score = policy.score
    calls = iter(range(1000))

    def score_nan_once(*args: Any, **kwargs: Any) -> TokenScores:
        scores = score(*args, **kwargs)
        return TokenScores(scores.logps * float("nan"), scores.logits) if next(calls) == 1 else scores

    policy.score = score_nan_once
    outcome = train(tmp_path / "run", policy, settings(steps=1))
    assert outcome.skipped == 1
    assert policy.adapter.abs().max() == 0.0


def test_run_ends_when_the_kl_passes_its_limit(tmp_path: Path, make_policy: Callable):
    policy = make_policy()
    config = settings(steps=100, kl_limit=0.3, alpha=0.0)
    outcome = train(tmp_path / "run", policy, config)
    rows = metrics(tmp_path / "run")
    assert outcome.stopped == "kl" and 1 < outcome.steps < 100
    assert outcome.steps == len(rows) == rows[-1]["step"]
    assert rows[-1]["kl"] > 0.3 and all(row["kl"] <= 0.3 for row in rows[:-1])
    with runs.open_run(tmp_path / "run", "finetune", config, resume=True) as run:
        checkpoint = run.latest()
    assert checkpoint is not None and torch.equal(checkpoint.tensors["policy.adapter"], policy.adapter)
    resumed = make_policy()
    assert train(tmp_path / "run", resumed, config, resume=True) == outcome
    assert torch.equal(resumed.adapter, policy.adapter) and metrics(tmp_path / "run") == rows


def test_every_part_is_computed_once_and_logged(tmp_path: Path, make_policy: Callable):
    target, other = Target(), Target()
    reward = WeightedSum(
        {"target": target, "other": other}, {"target": 1.0, "other": 2.0}, {"target": (0.25, 0.5), "other": (0.0, 1.0)}
    )
    train(tmp_path / "run", make_policy(), settings(), reward)
    assert target.calls == other.calls == 6
    for row in metrics(tmp_path / "run"):
        assert row["reward"] == pytest.approx((row["reward.target"] - 0.25) / 0.5 + 2 * row["reward.other"], abs=1e-5)


@pytest.fixture
def quiet_loudness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("musicrl.rewards.generations.loudness.match", lambda audio, rate: (audio, None))
    yield


@pytest.mark.usefixtures("quiet_loudness")
def test_audio_is_decoded_once_and_only_where_a_reward_listens(tmp_path: Path, make_policy: Callable):
    heard: list[tuple[int, ...]] = []

    def listen(prompts: Any, audio: Tensor, sample_rate: int) -> Tensor:
        heard.append((*audio.shape, sample_rate))
        return audio.mean(dim=1)

    deaf = make_policy()
    train(tmp_path / "deaf", deaf, settings(steps=2))
    assert deaf.decoded == 0
    hearing = make_policy()
    both = WeightedSum(
        {"codes": Target(), "audio": from_callable(listen), "again": from_callable(listen)},
        {"codes": 1.0, "audio": 1.0, "again": 1.0},
        {"codes": (0.0, 1.0), "audio": (0.0, 1.0), "again": (0.0, 1.0)},
    )
    train(tmp_path / "hearing", hearing, settings(steps=2), both)
    assert hearing.decoded == 16
    assert heard == [(8, 300, 1000)] * 4


def test_scores_match_the_sampler(tmp_path: Path, make_policy: Callable):
    train(tmp_path / "run", make_policy(), settings(temperature=0.7))
    assert all(row["logp_gap"] < 1e-6 for row in metrics(tmp_path / "run"))


def test_policy_that_draws_with_another_sampler_is_refused(tmp_path: Path, make_policy: Callable):
    policy = make_policy()
    sample = policy.sample
    policy.sample = lambda prompts, *, sampler, **rest: sample(prompts, sampler=type(sampler)(1.0, 5), **rest)
    with pytest.raises(ValueError, match="scores would not match"):
        train(tmp_path / "run", policy, settings())


def test_too_few_prompts_and_wrong_weights(tmp_path: Path, make_policy: Callable):
    with pytest.raises(UserError, match="3 prompts are fewer"):
        train(tmp_path / "few", make_policy(), settings(prompts_per_step=4))
    with pytest.raises(UserError, match="2 codebooks"):
        train(tmp_path / "weights", make_policy(), settings(codebook_weights=(1.0, 1.0, 1.0)))
