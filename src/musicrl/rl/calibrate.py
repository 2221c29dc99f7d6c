"""Constants that bring rewards of different units to one scale, measured on the policy that finetuning starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from musicrl.config import FinetuneConfig
from musicrl.errors import UserError
from musicrl.policies.protocol import Policy, Rollout, Sampler
from musicrl.progress import progress
from musicrl.rewards.generations import from_codes, needs_audio
from musicrl.rewards.protocol import Generations, Reward
from musicrl.rl.scoring import StepError, score

PROMPTS = 16
"""Prompts the constants are measured on."""

SAMPLES = 4
"""Clips of each of them."""

_AT_ONCE = 4


def calibrate(
    policy: Policy, rewards: Mapping[str, Reward], prompts: Sequence[str], config: FinetuneConfig
) -> dict[str, tuple[float, float]]:
    """Return mean and deviation of each reward over clips of the reference policy.

    The deviation is that between clips of one prompt: all a policy can do about its reward is to choose among the
    clips it could make for the prompt it is given. The constants then stay as they are (`WeightedSum`), so a gain in
    reward is not scaled away; who calls this keeps them for a resumed run.

    Args:
        policy: what will be finetuned; its reference makes the clips.
        rewards: rewards by name.
        prompts: texts to draw from.
        config: gives seconds, temperature, seed, device_batch_size, and `scales` that are known already.

    Returns:
        (mean, deviation) by name; those in `config.scales` as they are there.

    Raises:
        UserError: a reward gives no usable scores, or the same for every clip of a prompt.
    """
    unknown = {name: reward for name, reward in rewards.items() if name not in config.scales}
    known = {name: config.scales[name] for name in rewards if name in config.scales}
    if not unknown:
        return known
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(config.seed))[:PROMPTS]
    chosen = [prompts[int(i)] for i in order]
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    rollouts: list[Rollout] = []
    # A fixed number of prompts at once: the constants must not depend on device_batch_size.
    with torch.no_grad(), policy.reference(), progress("measure rewards on the start policy", len(chosen)) as bar:
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            rollouts.append(
                policy.sample(
                    part,
                    group_size=SAMPLES,
                    seconds=config.seconds,
                    sampler=Sampler(temperature=config.temperature),
                    generator=generator,
                )
            )
            bar.advance(len(part))
    clips = from_codes(
        [prompt for rollout in rollouts for prompt in rollout.prompts],
        torch.cat([rollout.codes for rollout in rollouts]),
        decode=policy.decode if any(needs_audio(reward) for reward in unknown.values()) else None,
        sample_rate=policy.sample_rate,
        batch_size=config.device_batch_size,
    )
    return known | {name: _scale(reward, clips) for name, reward in unknown.items()}


def _scale(reward: Reward, clips: Generations) -> tuple[float, float]:
    mend = "mend the reward, or give its mean and deviation in `scales`"
    try:
        values, _ = score(reward, clips)
    except StepError as failure:
        raise UserError(f"{failure}, on clips of the model to start from; {mend}") from failure
    deviation = float(values.view(-1, SAMPLES).var(dim=1).mean().sqrt())
    if deviation == 0.0:
        raise UserError(f"reward {reward.name} is the same for every clip of a prompt; {mend}")
    return float(values.mean()), deviation
