"""Finetuning a policy on a reward: KL-regularised REINFORCE with a value network, or with a leave-one-out baseline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from musicrl import runs
from musicrl.config import FinetuneConfig
from musicrl.errors import UserError
from musicrl.policies.protocol import Policy, Sampler, ValueNetwork
from musicrl.rewards.protocol import Reward
from musicrl.rl import losses
from musicrl.rl.metrics import Distance, Phases, diversity, hamming
from musicrl.rl.scoring import StepError
from musicrl.rl.step import Experience, accumulate_gradient, collect
from musicrl.training_state import under

MAX_FAILURES = 5
"""Steps that may fail in a row before the run stops."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: steps done in all, skipped ones included.
        skipped: steps without an update, because the reward or the gradient was not usable.
        stopped: "steps" (all were done) or "kl" (the KL passed its limit, and the last step made no update).
    """

    steps: int
    skipped: int
    stopped: Literal["steps", "kl"]


@dataclass
class _Learner:
    """Everything that changes from step to step, which is what a checkpoint holds."""

    policy: Policy
    value: ValueNetwork | None
    optimizers: dict[str, Optimizer]
    generators: dict[str, torch.Generator]
    skipped: int = 0
    failures: int = 0
    past_limit: bool = False

    def save(self, run: runs.Run, step: int) -> None:
        tensors, state = runs.pack(optimizer=self.optimizers, generators=self.generators)
        tensors |= {f"policy.{name}": t for name, t in self.policy.trainable_state().items()}
        if self.value is not None:
            tensors |= {f"value.{name}": t for name, t in self.value.state_dict().items()}
        counts = {"skipped": self.skipped, "failures": self.failures, "past_limit": self.past_limit}
        run.save(step, tensors, {**state, **counts})

    def load(self, checkpoint: runs.Checkpoint) -> int:
        runs.unpack(checkpoint.tensors, checkpoint.state, optimizer=self.optimizers, generators=self.generators)
        self.policy.load_trainable_state(under("policy.", checkpoint.tensors))
        if self.value is not None:
            self.value.load_state_dict(under("value.", checkpoint.tensors))
        self.skipped, self.failures = checkpoint.state["skipped"], checkpoint.state["failures"]
        self.past_limit = checkpoint.state["past_limit"]
        return checkpoint.step


def finetune(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[str],
    config: FinetuneConfig,
    run: runs.Run,
    *,
    distance: Distance = hamming,
) -> Outcome:
    """Finetune a policy on a reward; continues from the newest checkpoint of the run (MusicRL, section 3.2).

    Each step samples a group of clips for some prompts, scores them, and takes one AdamW step on the policy gradient
    and the exact KL to the reference, so the update is always on-policy. Each step logs `reward`, `reward_std`,
    `reward.NAME` of every part, `kl`, `kl_per_token`, `entropy`, `diversity`, `grad_norm`, `logp_gap`,
    `clips_per_second`, `seconds.PHASE` (sample, decode, reward, update), `skipped` and, with a value network,
    `value_loss`, `explained_variance` and `value_grad_norm`.

    A step whose reward or gradient is not usable changes nothing and is counted; Ctrl-C saves and ends. A run that the
    KL ended stays ended when it is resumed.

    Args:
        policy: what is finetuned, in place.
        reward: what scores the clips; best standardised (`calibrate`), for `config.alpha` weighs it against nats.
        prompts: texts to draw from.
        config: settings; `rewards` and `scales` in it are the business of who built the reward.
        run: where metrics and checkpoints go.
        distance: distance between samples of a prompt, of which `diversity` is the mean.

    Raises:
        UserError: there are too few prompts, the codebook weights do not fit the policy, the reward failed
            `MAX_FAILURES` times in a row, or Ctrl-C was pressed; what was learnt is saved.
    """
    if len(prompts) < config.prompts_per_step:
        raise UserError(
            f"{len(prompts)} prompts are fewer than prompts_per_step = {config.prompts_per_step}; give more"
        )
    weights = losses.codebook_weights(config.codebook_weights, policy.num_codebooks).to(policy.device)
    learner = _start(policy, config)
    checkpoint = run.latest()
    first = learner.load(checkpoint) if checkpoint is not None else 0
    if learner.past_limit:
        return Outcome(first, learner.skipped, "kl")
    with runs.progress("finetune", config.steps) as bar, runs.interruptible() as stop:
        bar.advance(first)
        for step in range(first, config.steps):
            phases = Phases(policy.device)
            _set_learning_rates(learner.optimizers, config, step)
            try:
                experience = collect(
                    policy,
                    reward,
                    _draw(prompts, config.prompts_per_step, learner.generators["prompts"]),
                    group_size=config.group_size,
                    seconds=config.seconds,
                    sampler=Sampler(temperature=config.temperature),
                    generator=learner.generators["samples"],
                    batch_size=config.device_batch_size,
                    phases=phases,
                )
                with phases("update"):
                    metrics = _gradient(learner, experience, config, weights)
                    if metrics["kl"] > config.kl_limit:
                        run.log(step + 1, **metrics, **_describe(experience, distance, phases))
                        learner.past_limit = True
                        learner.save(run, step + 1)
                        return Outcome(step + 1, learner.skipped, "kl")
                    for optimizer in learner.optimizers.values():
                        optimizer.step()
                learner.failures = 0
                metrics |= _describe(experience, distance, phases)
                bar.update(reward=metrics["reward"], kl=metrics["kl"])
            except StepError as failure:
                learner.skipped += 1
                learner.failures += 1
                metrics = {}
                _log.warning("step %d skipped: %s", step + 1, failure)
                if learner.failures == MAX_FAILURES:
                    learner.failures = 0
                    learner.save(run, step + 1)
                    raise UserError(
                        f"{MAX_FAILURES} steps failed in a row, at last because {failure};"
                        f" the last good state is saved in {run.path}; mend it and run again with --resume"
                    ) from failure
            run.log(step + 1, **metrics, skipped=learner.skipped)
            bar.advance()
            if stop() and step + 1 < config.steps:
                learner.save(run, step + 1)
                raise run.interrupted(step + 1)
            if run.due(config.checkpoint_minutes):
                learner.save(run, step + 1)
    learner.save(run, config.steps)
    return Outcome(config.steps, learner.skipped, "steps")


def _start(policy: Policy, config: FinetuneConfig) -> _Learner:
    optimizers: dict[str, Optimizer] = {"policy": _adamw(policy.trainable_parameters())}
    value = policy.value_network() if config.algorithm == "reinforce" else None
    if value is not None:
        optimizers["value"] = _adamw(list(value.parameters()))
    # Prompts and samples draw from their own generators, so that a longer clip does not change the order of prompts.
    generators = {
        "prompts": torch.Generator().manual_seed(config.seed),
        "samples": torch.Generator(device=policy.device).manual_seed(config.seed + 1),
    }
    return _Learner(policy, value, optimizers, generators)


def _adamw(parameters: list[torch.nn.Parameter]) -> AdamW:
    # No weight decay: the pull towards the reference is the KL's work. The rate is set before each step.
    return AdamW(parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)


def _set_learning_rates(optimizers: Mapping[str, Optimizer], config: FinetuneConfig, step: int) -> None:
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = warm * (config.learning_rate if name == "policy" else config.value_learning_rate)


def _draw(prompts: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    return [prompts[int(i)] for i in torch.randperm(len(prompts), generator=generator)[:count]]


def _gradient(learner: _Learner, experience: Experience, config: FinetuneConfig, weights: Tensor) -> dict[str, float]:
    for optimizer in learner.optimizers.values():
        optimizer.zero_grad()
    metrics = accumulate_gradient(
        learner.policy,
        learner.value,
        experience,
        alpha=config.alpha,
        weights=weights,
        batch_size=config.device_batch_size,
    )
    for name, optimizer in learner.optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
        if not norm < float("inf"):
            raise StepError(f"the gradient of the {name} has norm {norm}")
        metrics["grad_norm" if name == "policy" else f"{name}_grad_norm"] = norm
    return metrics


def _describe(experience: Experience, distance: Distance, phases: Phases) -> dict[str, float]:
    rewards = experience.rewards
    metrics = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(unbiased=False)),
        "diversity": diversity(distance(experience.clips, experience.rollout.group_size)),
        "clips_per_second": len(experience.rollout.prompts) / sum(phases.seconds.values()),
    }
    metrics |= {f"reward.{name}": float(values.mean()) for name, values in experience.parts.items()}
    return metrics | {f"seconds.{name}": seconds for name, seconds in phases.seconds.items()}
