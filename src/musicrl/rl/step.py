"""One step of reinforcement learning: sample and score clips, then accumulate the gradient on them.

Shapes: **B** clips, **G** samples per prompt, **K** codebooks, **T** frames, **V** codebook size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from musicrl.policies.protocol import Policy, Rollout, Sampler, ValueNetwork
from musicrl.rewards.generations import from_codes, needs_audio
from musicrl.rewards.protocol import Generations, Reward
from musicrl.rl import kl, losses
from musicrl.rl.advantages import leave_one_out, reward_to_go
from musicrl.rl.metrics import Phases, explained_variance
from musicrl.rl.scoring import StepError, score


@dataclass(frozen=True)
class Experience:
    """Clips of one step.

    Attributes:
        rollout: codes and how they were drawn.
        clips: the same codes decoded, or without audio where no reward needs it.
        rewards: [B] what is maximised.
        parts: [B] rewards by name, in their own units.
    """

    rollout: Rollout
    clips: Generations
    rewards: Tensor
    parts: dict[str, Tensor]


def collect(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[str],
    *,
    group_size: int,
    seconds: float,
    sampler: Sampler,
    generator: torch.Generator,
    batch_size: int,
    phases: Phases,
) -> Experience:
    """Sample a group of clips for each prompt and score them.

    Args:
        policy: what is finetuned.
        reward: what scores the clips.
        prompts: P texts.
        group_size: G; B = P · G.
        seconds: length of a clip.
        sampler: how codes are drawn.
        generator: random numbers of the sampling.
        batch_size: clips decoded at once.
        phases: where the time is booked.

    Raises:
        StepError: the reward gave no usable scores.
    """
    with phases("sample"):
        rollout = policy.sample(prompts, group_size=group_size, seconds=seconds, sampler=sampler, generator=generator)
    if rollout.sampler != sampler:
        raise ValueError(f"asked for {sampler}, the policy drew with {rollout.sampler}: scores would not match")
    with phases("decode"):
        clips = from_codes(
            rollout.prompts,
            rollout.codes,
            decode=policy.decode if needs_audio(reward) else None,
            sample_rate=policy.sample_rate,
            batch_size=batch_size,
        )
    with phases("reward"):
        rewards, parts = score(reward, clips)
    return Experience(rollout, clips, rewards.to(rollout.codes.device), parts)


def accumulate_gradient(
    policy: Policy,
    value: ValueNetwork | None,
    experience: Experience,
    *,
    alpha: float,
    weights: Tensor,
    batch_size: int,
) -> dict[str, float]:
    """Add the gradient of the objective, and of the value loss, on all clips; the batch size changes only the speed.

    Args:
        policy: what is finetuned.
        value: baseline of REINFORCE; None takes the leave-one-out baseline.
        experience: clips and rewards.
        alpha: weight of the KL.
        weights: [K] weight of each codebook.
        batch_size: clips scored at once.

    Returns:
        Metrics: `kl` (nats a clip), `kl_per_token`, `entropy` (nats a code), `logp_gap` (mean absolute difference
        between the log-probabilities captured while sampling and those scored) and, with a value network,
        `value_loss` and `explained_variance`.

    Raises:
        StepError: a loss is not finite.
    """
    rollout, rewards = experience.rollout, experience.rewards
    count = len(rollout.prompts)
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=rewards.device))
    predictions: list[Tensor] = []
    for part in torch.arange(count).split(batch_size):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        prompts, codes = rollout.prompts[rows], rollout.codes[rows]
        if value is None:
            advantages = leave_one_out(rewards, rollout.group_size)[rows]
        else:
            values = value(prompts, codes)
            error = losses.value_loss(values, rewards[rows]).sum()
            _backward(error / count, "value loss")
            advantages = reward_to_go(rewards[rows], values)
            sums["value_loss"] += error.detach()
            predictions.append(values.detach().mean(dim=(1, 2)))
        with torch.no_grad(), policy.reference():
            reference = policy.score(prompts, codes, sampler=rollout.sampler).logits.float().log_softmax(dim=-1)
        scores = policy.score(prompts, codes, sampler=rollout.sampler)
        log_probs = scores.logits.float().log_softmax(dim=-1)
        divergence = kl.divergence(log_probs, reference)
        objective = losses.policy_objective(scores.logps.float(), advantages, divergence, alpha=alpha, weights=weights)
        _backward(-objective.sum() / count, "policy loss")
        sums["kl"] += divergence.detach().sum()
        sums["entropy"] += kl.entropy(log_probs.detach()).sum()
        sums["logp_gap"] += (scores.logps.detach() - rollout.logps[rows]).abs().sum()
    codes_a_clip = rollout.codes[0].numel()
    metrics = {
        "kl": float(sums["kl"]) / count,
        "kl_per_token": float(sums["kl"]) / count / codes_a_clip,
        "entropy": float(sums["entropy"]) / count / codes_a_clip,
        "logp_gap": float(sums["logp_gap"]) / count / codes_a_clip,
    }
    if value is not None:
        metrics["value_loss"] = float(sums["value_loss"]) / count
        metrics["explained_variance"] = explained_variance(torch.cat(predictions), rewards)
    return metrics


def _backward(loss: Tensor, name: str) -> None:
    if not bool(torch.isfinite(loss)):
        raise StepError(f"the {name} is {loss.item()}")
    loss.backward()
