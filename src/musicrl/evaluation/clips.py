"""Held-out prompts and the clips that models make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from musicrl.corpus.prompts import Prompt
from musicrl.errors import UserError
from musicrl.policies.protocol import Policy, Sampler
from musicrl.rewards.generations import from_codes
from musicrl.runs import progress

PROMPTS_A_BATCH = 8


def draw(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """Return `count` different prompts, the same for the same seed.

    Raises:
        UserError: there are fewer.
    """
    if count > len(prompts):
        raise UserError(f"{count} prompts were asked for, {len(prompts)} are there; ask for fewer")
    return [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]]


def sample_clips(
    policy: Policy, prompts: Sequence[str], *, clips_per_prompt: int, seconds: float, temperature: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Sample clips of each prompt and decode them.

    Args:
        policy: what samples.
        prompts: P texts.
        clips_per_prompt: G.
        seconds: length of a clip.
        temperature: of the sampling.
        seed: of the sampling; each batch of prompts has a generator of its own.

    Returns:
        codes [P·G, K, T], and loudness-matched audio [P·G, N]; the clips of a prompt stand next to each other.
    """
    codes: list[Tensor] = []
    audio: list[Tensor] = []
    with progress("sample clips", len(prompts) * clips_per_prompt) as bar:
        for start in range(0, len(prompts), PROMPTS_A_BATCH):
            part = prompts[start : start + PROMPTS_A_BATCH]
            generator = torch.Generator(device=policy.device).manual_seed(seed * 1_000_003 + start)
            rollout = policy.sample(
                part,
                group_size=clips_per_prompt,
                seconds=seconds,
                sampler=Sampler(temperature=temperature),
                generator=generator,
            )
            clips = from_codes(rollout.prompts, rollout.codes, decode=policy.decode, sample_rate=policy.sample_rate)
            codes.append(rollout.codes.cpu())
            audio.append(clips.audio.float().cpu())
            bar.advance(len(rollout.prompts))
    return torch.cat(codes), torch.cat(audio)
